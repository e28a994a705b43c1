"""The gate in a deployment: what passes gets jobs, what does not is rejected, who decides otherwise is recorded."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.broker import create_celery
from app.domain.candles import Candle
from app.domain.strategies import StrategyStatus
from app.errors import RejectedStrategyError, UnknownStrategyError
from app.operations_gate import Force
from app.operations_replay import replay
from app.producer.build import build_dispatcher
from app.settings import BreakerSettings
from app.storage.candles import record_candles
from app.storage.strategies import set_status
from app.storage.verifications import load_newest
from app.strategies.registry import Registry
from tests.building import walk
from tests.integration.stage import Run, Stage
from tests.waiting import wait_until
from workers.lifecycle import open_slot
from workers.shared import Shared

GOOD = """
[strategies.cross]
implementation = "ema_cross"
limits = { p95_ms = 5000 }
"""
BAD = """
[strategies.ahead]
implementation = "tests.quant.wrong:PeeksAhead"
limits = { p95_ms = 5000 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a definition file."""

    def file(content: str) -> Path:
        path = tmp_path / "definitions.toml"
        path.write_text(content)
        return path

    return file


def show(run: Run, name: str) -> Any:
    return json.loads(run("strategies", "show", name, "--json").stdout)


def test_what_passes_is_active_and_what_does_not_is_rejected(
    stage: Stage, run: Run, file: Callable[[str], Path]
) -> None:
    said = run("strategies", "add", file(GOOD + BAD), "--json")
    assert said.exit_code == 1
    assert [(row["name"], row["status"]) for row in json.loads(said.stdout)] == [
        ("cross", "active"),
        ("ahead", "rejected"),
    ]
    ahead = show(run, "ahead")
    assert ahead["verification"]["verdict"] == "rejected"
    assert ahead["verification"]["finding"]["reason"] == "peeks_ahead"
    assert ahead["verification"]["fingerprint"] == ahead["fingerprint"]
    assert ahead["verification"]["ran_on"].endswith(f":{os.getpid()}")  # nobody else was there
    cross = show(run, "cross")
    assert (cross["verification"]["verdict"], cross["verification"]["finding"]) == ("passed", None)
    assert cross["verification"]["figures"]["candles"] == 10_000
    human = run("strategies", "show", "ahead")
    assert "it looks at 1 candle ahead" in human.stdout
    written = stage.write()  # only what passed gets jobs
    assert [key.strategy_id for key in written[0].chunk.jobs] == [cross["id"]]


def test_what_has_passed_is_not_verified_again(stage: Stage, run: Run, file: Callable[[str], Path]) -> None:
    for _ in range(2):
        assert run("strategies", "add", file(GOOD)).exit_code == 0
    assert stage.ask("SELECT strategy_id, revision, verdict FROM verifications") == [(1, 1, "passed")]
    assert run("strategies", "add", file(GOOD + "params = { fast = 9, slow = 21 }\n")).exit_code == 0
    found = "SELECT revision, verdict FROM verifications ORDER BY revision"
    assert stage.ask(found) == [(1, "passed"), (2, "passed")]


def test_rejected_strategy_stays_so_until_somebody_decides_and_that_is_recorded(
    stage: Stage, run: Run, file: Callable[[str], Path]
) -> None:
    run("strategies", "add", file(BAD))
    refused = run("strategies", "resume", "ahead")
    assert isinstance(refused.exception, RejectedStrategyError)
    assert "--force --reason" in str(refused.exception)
    run("strategies", "pause", "ahead")  # no way around it
    assert isinstance(run("strategies", "resume", "ahead").exception, RejectedStrategyError)
    assert run("strategies", "add", file(BAD)).exit_code == 1
    assert show(run, "ahead")["status"] == "rejected"

    assert run("strategies", "resume", "ahead", "--force").exit_code != 0  # without a reason
    assert run("strategies", "resume", "ahead", "--force", "--reason", "an experiment").exit_code == 0
    shown = show(run, "ahead")
    assert (shown["status"], shown["verification"]["verdict"]) == ("active", "rejected")
    assert shown["verification"]["forced"]["reason"] == "an experiment"
    assert "@" in shown["verification"]["forced"]["by"]
    assert "an experiment" in run("strategies", "show", "ahead").stdout
    # what was decided holds for this revision
    assert run("strategies", "add", file(BAD)).exit_code == 0
    assert run("strategies", "resume", "ahead").exit_code == 0


def test_forced_at_once_is_recorded_too(stage: Stage, run: Run, file: Callable[[str], Path]) -> None:
    assert run("strategies", "add", file(BAD), "--force", "--reason", "known").exit_code == 0
    shown = show(run, "ahead")
    assert (shown["status"], shown["verification"]["forced"]["reason"]) == ("active", "known")


def test_verifying_a_file_adds_nothing(stage: Stage, run: Run, file: Callable[[str], Path]) -> None:
    said = run("strategies", "verify", file(GOOD + BAD), "--json")
    assert said.exit_code == 1
    rows = json.loads(said.stdout)
    assert [(row["strategy"], row["verdict"], row["status"]) for row in rows] == [
        ("cross", "passed", None),
        ("ahead", "rejected", None),
    ]
    assert rows[1]["finding"]["time"]
    assert stage.ask("SELECT count(*) FROM strategies") == [(0,)]
    assert "looks at 1 candle ahead" in " ".join(run("strategies", "verify", file(BAD)).stderr.split())


def test_verifying_a_strategy_takes_out_what_fails_and_lets_in_what_passes(stage: Stage, run: Run) -> None:
    stage.add("ahead", "tests.quant.wrong:PeeksAhead", p95_ms=5000)  # as it was before there was a gate
    stage.add("cross", p95_ms=5000)
    assert run("strategies", "verify", "ahead").exit_code == 1
    assert run("strategies", "verify", "cross").exit_code == 0
    assert (show(run, "ahead")["status"], show(run, "cross")["status"]) == ("rejected", "active")
    with stage.operations.changing() as connection:
        set_status(connection, "cross", StrategyStatus.REJECTED)
    assert run("strategies", "verify", "cross").exit_code == 0
    assert show(run, "cross")["status"] == "active"
    assert isinstance(run("strategies", "verify", "crosss").exception, UnknownStrategyError)


def test_stored_candles_are_used_as_well(stage: Stage) -> None:
    stage.add("cross", p95_ms=5000)
    with stage.operations.changing() as connection:
        for symbol in ("AAA-USD", "BBB-USD"):
            record_candles(connection, walk(symbol, 700), "test")
    assert figures(stage, ())["candles"] == 10_000 + 1400
    assert figures(stage, ("AAA-*",))["candles"] == 10_000 + 700
    assert figures(stage, ("CCC-*",))["candles"] == 10_000


def figures(stage: Stage, symbols: tuple[str, ...]) -> Any:
    report = stage.operations.verify_strategy("cross", symbols).verification.report
    assert report is not None
    return report["figures"]


def test_worker_node_makes_verifications(stage: Stage, file: Callable[[str], Path]) -> None:
    with stage.worker() as worker:
        wait_until(lambda: stage.ask("SELECT 1 FROM nodes"), "the node gives signs of life")
        changes = stage.operations.add_definitions(file(GOOD + BAD))
        assert [change.strategy.definition.status.value for change in changes] == ["active", "rejected"]
        made = [change.verification for change in changes]
        assert all(each is not None and not str(each.ran_on).endswith(f":{os.getpid()}") for each in made)
        assert worker.is_alive()
        # jobs go on beside it
        (envelope,) = stage.write()
        stage.publisher.publish([envelope])
        wait_until(lambda: stage.statuses(1) == {1: "succeeded"}, "the strategy that passed has run")


def test_verification_that_no_node_takes_is_made_here(
    stage: Stage, file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations_gate.TAKEN_WITHIN_S", 0.2)
    columns = "node, queues, slots, started_at, seen_at"
    with stage.operations.changing() as connection:
        gone = f"INSERT INTO nodes ({columns}) VALUES ('gone', '{{low}}', 1, now(), now() + interval '1h')"
        connection.exec_driver_sql(gone)
    (change,) = stage.operations.add_definitions(file(GOOD))
    assert change.strategy.definition.status is StrategyStatus.ACTIVE
    assert len(stage.raw("low")) == 1  # and when a node comes, it finds it made
    with stage.worker():
        wait_until(lambda: not stage.raw("low") and not stage.unacked(), "the message is done with")
    assert stage.ask("SELECT count(*), count(DISTINCT ran_on) FROM verifications") == [(1, 1)]
    assert stage.ask("SELECT * FROM dead_letters") == []


CODE = """
from app.strategies.sdk import Context, Signal, Strategy

class Simple(Strategy):
    def on_candle(self, context: Context) -> Signal:
        return Signal(action={action}, strength=0.5, extras={{"seen": len(context.bars)}})
"""


@pytest.fixture
def quants(tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Writes the code of a strategy that answers with an action."""
    package = tmp_path / "quants"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    ticks = iter(range(1_700_000_000, 1_800_000_000))

    def quants(action: int) -> None:
        path = package / "simple.py"
        path.write_text(CODE.format(action=action))
        moment = next(ticks)  # Python compares modules by whole seconds
        os.utime(path, (moment, moment))

    quants(1)
    settings = stage.settings.strategies.model_copy(update={"modules": ("quants", "tests.quant")})
    changed = stage.settings.model_copy(update={"strategies": settings})
    monkeypatch.setattr(stage.operations, "settings", changed)
    monkeypatch.setattr(stage.operations._gate, "_settings", changed)
    monkeypatch.setattr(stage.operations._gate, "_registry", Registry(("quants", "tests.quant")))
    yield quants
    for name in [name for name in sys.modules if name.partition(".")[0] == "quants"]:
        del sys.modules[name]


SIMPLE = """
[strategies.simple]
implementation = "quants.simple:Simple"
limits = { p95_ms = 5000 }
"""


def test_changed_code_is_a_new_revision_and_passes_the_gate_again(
    stage: Stage, file: Callable[[str], Path], quants: Callable[[int], None]
) -> None:
    for action, revision in ((1, 1), (1, 1), (-1, 2)):
        quants(action)
        (change,) = stage.operations.add_definitions(file(SIMPLE))
        assert (change.strategy.revision, change.strategy.definition.status.value) == (revision, "active")
    assert stage.ask("SELECT revision, verdict FROM verifications ORDER BY 1") == [(1, "passed"), (2, "passed")]
    assert stage.ask("SELECT count(DISTINCT fingerprint), count(fingerprint) FROM strategy_revisions") == [(2, 2)]


def test_replay_finds_nothing_as_long_as_nothing_changed_and_everything_that_did(
    stage: Stage, file: Callable[[str], Path], quants: Callable[[int], None]
) -> None:
    stage.operations.add_definitions(file(SIMPLE + GOOD), Force("a test", "needs no verdict"))
    stage.add("raises", "tests.quant.misbehaving:Raises", retries=0)
    candles = walk("ABC-USD", 200)
    land(stage, candles)
    same = replay(stage.operations, 200)
    assert {job.strategy: (job.status, list(job.differences)) for job in same.jobs} == {
        "simple": ("succeeded", []),
        "cross": ("succeeded", []),
        "raises": ("failed", []),
    }
    assert (same.differs, same.candles, list(same.dispatch.changed)) == (False, 200, [])

    quants(-1)
    changed = replay(stage.operations, 200, "simple")
    (job,) = changed.jobs
    assert [(each.value, each.recorded, each.replayed) for each in job.differences] == [("action", 1, -1)]
    assert (changed.differs, job.note) == (True, "the code here is not that of revision 1")

    with stage.operations.changing() as connection:
        lower = candles[150].model_copy(update={"close": candles[150].low})
        record_candles(connection, [lower], "corrected")
    corrected = replay(stage.operations, 200, "cross")
    assert [(each["open_time"], each["revision"]) for each in corrected.dispatch.changed] == [(lower.open_time, 1)]
    assert {each.value for each in corrected.jobs[0].differences} >= {"strength", "edge"}
    # what was said about a candle before the corrected one still holds
    assert not replay(stage.operations, 150, "cross").differs


def land(stage: Stage, candles: list[Candle]) -> None:
    """Dispatch a series and run all of it in a slot of this process."""
    before = signal.getsignal(signal.SIGALRM)
    # a breaker that opened would be noticed after a second: whether that is before the end must not matter
    settings = stage.operations.settings.model_copy(update={"breaker": BreakerSettings(failures=1_000)})
    slot = open_slot(create_celery(settings), settings, Shared())
    try:
        written = build_dispatcher(settings, stage.operations.engine, "test").write(candles)
        slot.executor.execute([envelope.chunk for envelope in written.envelopes])
    finally:
        slot.close()
        signal.signal(signal.SIGALRM, before)


def test_replay_is_a_command_with_an_exit_code(stage: Stage, run: Run) -> None:
    stage.add("cross")
    land(stage, walk("ABC-USD", 100))
    same = run("replay", 100, "--json")
    assert (same.exit_code, json.loads(same.stdout)["differs"]) == (0, False)
    with stage.operations.changing() as connection:
        connection.exec_driver_sql("UPDATE outcomes SET strength = 0.123 WHERE dispatch_id = 100")
    other = run("replay", 100, "--strategy", "cross", "--json")
    (job,) = json.loads(other.stdout)["jobs"]
    assert (other.exit_code, job["differences"][0]["value"], job["is_same"]) == (1, "strength", False)
    human = run("replay", 100)
    assert (human.exit_code, "0.123" in human.stdout) == (1, True)
    assert run("replay", 999).exit_code == 1
    assert isinstance(run("replay", 100, "--strategy", "nobody").exception, UnknownStrategyError)


def test_newest_verification_of_a_revision_counts(stage: Stage) -> None:
    strategy_id = stage.add("cross", p95_ms=5000)
    first = stage.operations.verify_strategy("cross").verification
    second = stage.operations.verify_strategy("cross").verification
    with stage.operations.reading() as connection:
        newest = load_newest(connection, strategy_id, 1)
        assert load_newest(connection, strategy_id, 2) is None
    assert newest is not None
    assert (newest.id, newest.id != first.id) == (second.id, True)
