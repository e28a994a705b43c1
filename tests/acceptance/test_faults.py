"""Faults, small and fast, on real processes: the drill's own, and those that need a closer look.

Bounds are the requirements' with room for a busy machine; what may not happen at all is not given any room.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import psutil
import pytest

from app.drill import faults as faults_module
from app.drill.certificate import Finding
from app.drill.faults import Fault, build_faults
from app.drill.harness import Fleet, Ground, ground
from app.drill.load import Entry, Load
from app.drill.run import Expectation, run_fault, run_undisturbed
from app.settings import Settings
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
LOAD = Load(per_symbol=70)
#: Seconds of an outage here; the drill's own is longer.
OUTAGE_S = 4.0
#: Room for a busy machine, as a factor of a bound.
ROOM = 3.0
#: What these tests look at; the drill goes through all.
FAULTS = {fault.name: fault for fault in build_faults(OUTAGE_S)}
SMALL = (
    "kill-slot",
    "orphan-slots",
    "kill-producer",
    "wipe-redis",
    "postgres-away",
    "segfault",
)


@pytest.fixture(scope="module")
def held() -> Iterator[Ground]:
    with ground(Settings(), LOAD, Event()) as held:
        yield held


@pytest.fixture(scope="module")
def expectation(held: Ground) -> Expectation:
    finding, expectation = run_undisturbed(held)
    assert finding.is_good, finding.problems
    assert expectation.innocents == LOAD.candles * 11
    return expectation


def with_room(fault: Fault) -> Fault:
    return Fault(fault.name, fault.title, fault.inject, fault.bound_s * ROOM, fault.guilty, fault.start_producer)


def assert_well(finding: Finding) -> None:
    assert finding.problems == ()
    assert (finding.lost, finding.doubled, finding.is_equal) == (0, 0, True)
    assert finding.landed == finding.expected


@pytest.mark.parametrize("name", SMALL)
def test_nothing_is_lost_doubled_or_different(held: Ground, expectation: Expectation, name: str) -> None:
    assert_well(run_fault(held, with_room(FAULTS[name]), expectation))


def test_repetitions_change_no_row(held: Ground, expectation: Expectation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults_module, "REPEATS", 500)
    assert_well(run_fault(held, with_room(FAULTS["duplicates"]), expectation))


def killers() -> list[Entry]:
    names = ("Segfaults", "HangsInC", "Exits", "IsKilled")
    return [
        Entry(name.lower(), name, {"after": LOAD.per_symbol - 1}, ("ALPHA-USD",), timeout_ms=500, retries=1)
        for name in names
    ]


def test_thirty_jobs_survive_four_that_kill_their_slot(held: Ground) -> None:
    innocents = [Entry(f"quick-{n}", "Steady", {"pause_ms": 1}, ("ALPHA-USD",), timeout_ms=500) for n in range(26)]
    guilty = killers()
    # nothing counts as lost here, however busy the machine is: retries are what is looked at
    environment = {"CANDLEFLEET_DISPATCH__CHUNK_SIZE": "64", "CANDLEFLEET_MAINTENANCE__OVERDUE_S": "60"}
    with held.fleet([*innocents, *guilty], environment) as fleet:
        fleet.start_producer()
        fleet.start()
        fleet.await_end()
        last = fleet.rows("SELECT id FROM dispatches WHERE symbol = 'ALPHA-USD' ORDER BY open_time DESC LIMIT 1")[0][0]
        ends = dict(
            fleet.rows(
                "SELECT s.name, o.status FROM outcomes o JOIN strategies s ON s.id = o.strategy_id "
                "WHERE o.dispatch_id = :last",
                last=last,
            )
        )
        assert {ends.pop(each.name) for each in guilty if each.name != "hangsinc"} == {"crashed"}
        assert ends.pop("hangsinc") == "timed_out"
        assert set(ends.values()) == {"succeeded"} and len(ends) == 26 + 11
        tried = fleet.rows("SELECT attempt, count(*) FROM attempts WHERE dispatch_id = :last GROUP BY 1", last=last)
        assert [tuple(row) for row in tried] == [(0, len(guilty))]
        tripped = fleet.rows("SELECT count(*) FROM breakers WHERE state = 'open' AND crashes = 2")
        assert tripped[0][0] == len(guilty)
        assert_innocents_were_quick(fleet, last, [each.name for each in guilty])


def assert_innocents_were_quick(fleet: Fleet, dispatch: int, guilty: list[str]) -> None:
    death = min(line.at for line in fleet.log_lines("slot died") if line.fields["dispatch"] == dispatch)
    landed = fleet.rows(
        "SELECT max(o.finished_at) FROM outcomes o JOIN strategies s ON s.id = o.strategy_id "
        "WHERE o.dispatch_id = :dispatch AND NOT s.name = ANY(:guilty)",
        dispatch=dispatch,
        guilty=guilty,
    )[0][0]
    # the killers that were not met yet die one after the other among them, one by its limit of 1.5 s
    assert (landed - death).total_seconds() < (faults_module.SLOT_BOUND_S + 1.5) * ROOM


@pytest.fixture
def stuck(held: Ground) -> Iterator[Fleet]:
    """One node whose only slot hangs in C, with messages waiting in it and on the queues."""
    entry = Entry("hangsinc", "HangsInC", {}, ("ALPHA-USD",), timeout_ms=60_000)
    with held.fleet([entry], {"CANDLEFLEET_WORKER__SHUTDOWN_S": "5"}) as fleet:
        fleet.start_producer()
        fleet.start_worker("worker-1")
        fleet.await_nodes(1)
        wait_until(lambda: is_stuck(fleet), "the slot hangs")
        fleet.children.kill("producer")  # nothing is added to the queues any more
        yield fleet


def is_stuck(fleet: Fleet) -> bool:
    """Nothing ended between two heartbeats, though the slot is busy and messages wait."""
    look = "SELECT processed, busy, seen_at FROM nodes"
    before = fleet.rows(look)[0]
    later = fleet.wait(lambda: [row for row in fleet.rows(look) if row.seen_at > before.seen_at], "a beat") or []
    still = all(row.processed == before.processed and row.busy for row in later)
    return still and messages(fleet) > 1


def messages(fleet: Fleet) -> int:
    return sum(fleet.publisher.depths().values())


def test_a_slot_that_is_busy_in_c_does_not_hold_up_the_end(stuck: Fleet) -> None:
    before, slots = messages(stuck) + stuck.held(), stuck.slot_pids("worker-1")
    stuck.children.signal("worker-1", signal.SIGTERM)
    # what only waits is handed back at once, while the slot still has its time
    wait_until(lambda: stuck.held() == 1, "waiting messages are back")
    assert stuck.children.wait("worker-1", 5.0 * ROOM) == 0
    assert (messages(stuck), stuck.held()) == (before, 0)
    assert stuck.node_names() == set()
    assert not any(psutil.pid_exists(pid) for pid in slots)


def test_a_second_signal_hands_back_at_once(stuck: Fleet) -> None:
    before, asked = messages(stuck) + stuck.held(), time.monotonic()
    stuck.children.signal("worker-1", signal.SIGTERM)
    wait_until(lambda: stuck.held() == 1, "waiting messages are back")
    stuck.children.signal("worker-1", signal.SIGTERM)
    assert stuck.children.wait("worker-1", 5.0 * ROOM) == 0
    assert stuck.log_lines("handing back")[0].fields["reason"] == "a second signal, SIGTERM"
    assert (messages(stuck), stuck.held()) == (before, 0)
    assert time.monotonic() - asked < 5.0 * ROOM


def test_a_broker_that_does_not_answer_does_not_hold_up_the_end(held: Ground, stuck: Fleet) -> None:
    slots, redis = stuck.slot_pids("worker-1"), held.server("redis").pid
    os.kill(redis, signal.SIGSTOP)
    try:
        stuck.children.signal("worker-1", signal.SIGTERM)
        assert stuck.children.wait("worker-1", 5.0 * ROOM) in (0, 1)  # 1: nothing could be handed back
    finally:
        os.kill(redis, signal.SIGCONT)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in slots), "its slots are gone")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}


def start_drill(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app.cli.main", "drill", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def leftovers(folder: Path) -> list[int]:
    """Processes that name the folder in their command line or environment."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        texts = [*(process.info["cmdline"] or ()), *(process.info["environ"] or {}).values()]
        if process.pid != os.getpid() and any(str(folder) in text for text in texts):
            found.append(process.pid)
    return found


def test_command_prints_a_certificate_and_leaves_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    drill = start_drill(environment, "--only", "raise", "--candles", "60", "--seed", "3", "--json")
    output, said = drill.communicate(timeout=120)
    assert drill.returncode == 0, said + output
    certificate = json.loads(output)
    assert [finding["fault"] for finding in certificate["faults"]] == ["undisturbed", "raise"]
    assert certificate["is_good"] and certificate["seed"] == 3
    assert certificate["faults"][1]["guilty"]["failed"] > 0
    wait_until(lambda: not leftovers(tmp_path), "no process remains")
    assert list(tmp_path.iterdir()) == []


def test_command_ends_cleanly_on_ctrl_c(environment: dict[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    drill = start_drill(environment, "--only", "raise")
    wait_until(lambda: list(tmp_path.glob("candlefleet-*/logs/*/worker-1.log")), "the drill is under way")
    drill.send_signal(signal.SIGINT)
    _, said = drill.communicate(timeout=60)
    assert drill.returncode == 1 and "stopped before the end" in said
    wait_until(lambda: not leftovers(tmp_path), "no process remains")
    assert list(tmp_path.iterdir()) == []


def test_command_refuses_an_unknown_fault(environment: dict[str, str]) -> None:
    drill = start_drill(environment, "--only", "kill-slots")
    _, said = drill.communicate(timeout=60)
    assert drill.returncode == 2 and "did you mean 'kill-slot'?" in said
