"""Batch runs on real servers, in this process: planned, started, worked on by a slot, recorded once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from app.broker import create_celery
from app.domain.runs import RunState
from app.operations import Operations
from app.operations_runs import start
from app.runs.specification import parse_spec
from app.settings import Settings
from app.storage import runs
from app.storage.candles import record_candles
from tests.building import definition, register, walk
from tests.integration.ledger import rows
from workers.lifecycle import Slot, open_slot
from workers.shared import Shared

#: The soft limit of a unit and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

SPEC = {"strategies": ["cross"], "timeframe": "1h", "from": "2024-01-08T00:00Z", "to": "2024-03-01T00:00Z"}


@pytest.fixture
def slot(settings: Settings) -> Iterator[Slot]:
    before = signal.getsignal(signal.SIGALRM)
    slot = open_slot(create_celery(settings), settings, Shared())
    yield slot
    slot.close()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def operations(settings: Settings) -> Iterator[Operations]:
    operations = Operations(settings)
    yield operations
    operations.close()


def store(engine: Engine, *symbols: str, count: int = 1500) -> None:
    for symbol in symbols:
        with engine.begin() as connection:
            record_candles(connection, walk(symbol, count), "test")


def finish(slot: Slot, run_id: int) -> None:
    while slot.batch.work(run_id, 0):
        pass


def test_a_run_is_worked_on_to_its_end(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("cross"))
    store(engine, "AAA", "BBB")
    run = start(operations, parse_spec({**SPEC, "grid": {"fast": [5, 8], "slow": [20, 30, 40]}})).run
    finish(slot, run.id)
    with operations.reading() as connection:
        progress = runs.load_progress(connection, run.id)
        units = runs.list_units(connection, run.id, None, 100)
    assert (progress.state, progress.units["succeeded"], progress.total) == (RunState.COMPLETE, 12, 12)
    assert progress.candles == 12 * 1272
    assert {unit["attempts"] for unit in units} == {1}
    stored = "SELECT unit, count(*) FROM unit_trades WHERE run_id = %s GROUP BY unit ORDER BY unit"
    trades = dict(rows(engine, stored.replace("%s", str(run.id))))
    assert trades == {unit["number"]: unit["metrics"]["trades"] for unit in units}
