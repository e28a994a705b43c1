"""Batch runs on real nodes: slots, nodes and Redis die, operators change their minds, and every unit counts once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from sqlalchemy import text

from app import embedded
from app.domain.runs import RunState, UnitState
from app.errors import StorageUnavailableError, WrongStateError
from app.operations import Operations
from app.operations_runs import Watch, cancel, pause, resume, retry_failed, start
from app.runs.specification import parse_spec
from app.settings import BrokerSettings, Settings, WorkerSettings
from app.storage import runs
from app.storage.candles import record_candles
from app.storage.engine import build_engine
from app.storage.migrate import upgrade
from app.storage.runs import Progress, Run
from tests.building import definition, register, walk
from tests.cluster import WorkerProcess
from tests.conftest import settings_on
from tests.waiting import wait_until

#: Candles of each stored series; those of a run are fewer.
STORED = 400
RANGE = {"timeframe": "1h", "from": "2024-01-10T00:00Z", "to": "2024-01-12T00:00Z"}
#: Units of `slow`: names on symbols.
NAMES = [f"n{number}" for number in range(12)]
SYMBOLS = ("AAA", "BBB", "CCC")


@pytest.fixture(scope="module")
def settings(own_servers: embedded.Servers) -> Settings:
    worker = WorkerSettings(window=160, heartbeat_s=0.5, timeout_ms=1000, hard_grace_s=1.0, retry_cap_s=0.2)
    settings = settings_on(own_servers.database_url, own_servers.broker_url, "").model_copy(
        update={"broker": BrokerSettings(visibility_timeout_s=40, restore_interval_s=1), "worker": worker}
    )
    engine = build_engine(settings.database_dsn, name="tests")
    upgrade(engine)
    for symbol in SYMBOLS:
        with engine.begin() as connection:
            record_candles(connection, walk(symbol, STORED), "test")
    engine.dispose()
    return settings


@pytest.fixture
def node(settings: Settings, tmp_path: Path) -> Iterator[Callable[[str], WorkerProcess]]:
    """Starts nodes for runs; they are gone after the test."""
    started: list[WorkerProcess] = []

    def launch(name: str) -> WorkerProcess:
        process = WorkerProcess(name, settings, tmp_path / f"{name}.log", queues="batch")
        started.append(process)
        process.ready()
        return process

    yield launch
    for process in started:
        process.teardown()


def begin(operations: Operations, name: str, implementation: str = "paced", **changes: Any) -> Run:
    """Start a run of a strategy of its own: a unit of `paced` takes a quarter of a second."""
    implementation = "tests.quant.pacing:Paced" if implementation == "paced" else implementation
    params = {"file": "/dev/null", "who": name, "pause_ms": 5.0} if implementation.endswith("Paced") else {}
    register(operations.engine, definition(name, implementation, params=params))
    grid = {"who": NAMES} if params else {}
    return start(operations, parse_spec({**RANGE, "strategies": [name], "grid": grid, **changes})).run


@pytest.fixture
def watch(operations: Operations) -> Iterator[Callable[[Run], Watch]]:
    watches: list[Watch] = []

    def build(run: Run) -> Watch:
        watches.append(Watch(operations, run.id))
        return watches[-1]

    yield build
    for each in watches:
        each.close()


def wait_for(watch: Watch, condition: Callable[[Progress], object], reason: str) -> Progress:
    """Look at a run, as `runs watch` does, until it is as wanted."""
    seen: list[Progress] = []

    def look() -> object:
        with suppress(StorageUnavailableError):  # a test restarts it
            seen.append(watch.look(datetime.now(UTC)))
        return seen and condition(seen[-1])

    wait_until(look, reason, 90.0)
    return seen[-1]


def wait_for_end(watch: Watch) -> Progress:
    return wait_for(watch, lambda progress: progress.state is RunState.COMPLETE, "the run is complete")


def ask(operations: Operations, question: str, run: Run) -> list[tuple[Any, ...]]:
    with operations.reading() as connection:
        return [tuple(row) for row in connection.execute(text(question), {"run": run.id})]


def assert_counted_once(operations: Operations, run: Run) -> None:
    """Every unit succeeded and left exactly what one execution of it leaves."""
    counted = "SELECT unit, count(*) FROM unit_equity WHERE run_id = :run GROUP BY unit ORDER BY unit"
    assert ask(operations, counted, run) == [(number, 1) for number in range(run.units)]
    traded = """
        SELECT u.number, (u.metrics->>'trades')::int - (SELECT count(*) FROM unit_trades t
                                                        WHERE t.run_id = u.run_id AND t.unit = u.number)
        FROM units u WHERE u.run_id = :run AND u.state = 'succeeded' ORDER BY u.number
    """
    assert ask(operations, traded, run) == [(number, 0) for number in range(run.units)]
    assert ask(operations, "SELECT count(*) FROM units WHERE run_id = :run AND claim IS NOT NULL", run) == [(0,)]


def test_slots_and_nodes_die_and_every_unit_counts_once(
    operations: Operations, node: Callable[[str], WorkerProcess], watch: Callable[[Run], Watch]
) -> None:
    first, second = node("first"), node("second")
    run = begin(operations, "mortal")
    looking = watch(run)
    wait_for(looking, lambda progress: progress.ended > 3, "units end")
    os.kill(min(first.slots()), signal.SIGKILL)
    wait_for(looking, lambda progress: progress.ended > 10, "it goes on without a slot")
    second.kill("SIGKILL")
    wait_for(looking, lambda progress: progress.ended > 18, "it goes on without a node")
    first.kill("SIGKILL")
    node("third")
    progress = wait_for_end(looking)
    assert progress.units == {"succeeded": 36, "pending": 0, "failed": 0, "cancelled": 0}
    assert_counted_once(operations, run)


def test_a_run_goes_on_over_restarts_and_a_redis_that_forgot_everything(
    operations: Operations,
    own_servers: embedded.Servers,
    node: Callable[[str], WorkerProcess],
    watch: Callable[[Run], Watch],
) -> None:
    node("steady")
    run = begin(operations, "forgotten")
    looking = watch(run)
    wait_for(looking, lambda progress: progress.ended > 3, "units end")
    own_servers.redis.restart()
    wait_for(looking, lambda progress: progress.ended > 9, "it goes on after the restart of Redis")
    own_servers.postgres.restart()
    wait_for(looking, lambda progress: progress.ended > 15, "it goes on after the restart of Postgres")
    with redis.from_url(own_servers.broker_url) as client:
        client.flushdb()  # of this module's own server
    wait_for_end(looking)
    assert_counted_once(operations, run)


def test_a_paused_run_rests_and_a_cancelled_one_ends(
    operations: Operations, node: Callable[[str], WorkerProcess], watch: Callable[[Run], Watch]
) -> None:
    node("obedient")
    run = begin(operations, "steered")
    looking = watch(run)
    wait_for(looking, lambda progress: progress.ended > 2, "units end")
    assert pause(operations, run.id) is RunState.PAUSED
    rested = wait_for(looking, lambda progress: progress.slots == 0, "its slots have left it")
    assert looking.look(datetime.now(UTC)).ended == rested.ended < run.units
    assert resume(operations, run.id) is RunState.RUNNING
    wait_for(looking, lambda progress: progress.ended > rested.ended + 2, "it goes on")
    assert cancel(operations, run.id) is RunState.CANCELLED
    ended = wait_for(looking, lambda progress: progress.slots == 0, "its slots have left it")
    assert ended.units[UnitState.PENDING] == 0 < ended.units[UnitState.CANCELLED]
    assert ask(operations, "SELECT count(*) FROM unit_equity WHERE run_id = :run", run) == [
        (ended.units[UnitState.SUCCEEDED],)
    ]
    with pytest.raises(WrongStateError, match="is cancelled"):
        resume(operations, run.id)


def test_a_unit_that_kills_its_slot_fails_alone(
    operations: Operations, node: Callable[[str], WorkerProcess], watch: Callable[[Run], Watch]
) -> None:
    process = node("victim")
    register(operations.engine, definition("healthy"), definition("lethal", "tests.quant.misbehaving:Dies"))
    limits = {"retries": 1}
    run = start(operations, parse_spec({**RANGE, "strategies": ["healthy", "lethal"], "limits": limits})).run
    progress = wait_for_end(watch(run))
    assert progress.units == {"succeeded": 3, "failed": 3, "pending": 0, "cancelled": 0}
    failed = """SELECT v.strategy, u.attempts, u.error_class FROM units u
                JOIN variants v ON v.run_id = u.run_id AND v.number = u.variant
                WHERE u.run_id = :run AND u.state = 'failed'"""
    assert ask(operations, failed, run) == [("lethal", 2, "SlotDiedError")] * 3
    assert process.status == "running"


def test_failures_are_told_and_tried_again(
    operations: Operations, node: Callable[[str], WorkerProcess], watch: Callable[[Run], Watch]
) -> None:
    node("honest")
    run = begin(operations, "wrong", "tests.quant.misbehaving:Raises", limits={"retries": 2})
    looking = watch(run)
    progress = wait_for_end(looking)
    assert progress.units["failed"] == 3
    with operations.reading() as connection:
        units = runs.list_units(connection, run.id, UnitState.FAILED, 10)
    assert {(unit["attempts"], unit["error_class"]) for unit in units} == {(3, "ValueError")}
    assert retry_failed(operations, run.id) == 3
    assert wait_for_end(looking).units["failed"] == 3
    counted = "SELECT processed, errors FROM nodes WHERE node LIKE 'honest@%' AND :run > 0"
    wait_until(lambda: ask(operations, counted, run) == [(6, 6)], "its node has counted both rounds", 10.0)


def test_slots_that_serve_only_runs_are_nicer_than_others(
    settings: Settings, node: Callable[[str], WorkerProcess]
) -> None:
    process = node("nice")
    expected = min(19, psutil.Process(process.pid).nice() + settings.runs.nice)
    assert {psutil.Process(slot).nice() for slot in process.slots()} == {expected}
    if sys.platform == "linux":
        assert {os.sched_getscheduler(slot) for slot in process.slots()} == {os.SCHED_IDLE}
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
