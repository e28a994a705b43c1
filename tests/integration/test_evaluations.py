"""Evaluate runs on real servers: the latest candle of every market, answered as live would, selected once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from app.broker import create_celery
from app.domain.runs import RunState
from app.operations import Operations
from app.operations_evaluations import load_selection
from app.operations_runs import start
from app.runs.specification import parse_spec
from app.settings import Settings
from app.storage import runs
from app.storage.candles import record_candles
from app.storage.listings_runs import list_evaluations
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.registry import Registry
from tests.building import START, definition, register, walk
from workers.lifecycle import Slot, open_slot
from workers.shared import Shared

#: The soft limit of a unit and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

COUNT = 300
SPEC = {
    "kind": "evaluate",
    "strategies": ["cross"],
    "timeframe": "1h",
    "to": (START + COUNT * timedelta(hours=1)).isoformat(),
    "selection": {"min_edge_percent": 0.05},
}


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


def store(engine: Engine, *symbols: str, count: int = COUNT) -> None:
    for seed, symbol in enumerate(symbols):
        with engine.begin() as connection:
            record_candles(connection, walk(symbol, count, seed), "test")


def finish(slot: Slot, run_id: int) -> None:
    while slot.batch.work(run_id, 0):
        pass


def answers(operations: Operations, run_id: int) -> dict[tuple[str, str], dict[str, Any]]:
    with operations.reading() as connection:
        return {(row["symbol"], row["strategy"]): row for row in list_evaluations(connection, run_id, None, 1000)}


@pytest.mark.parametrize("method", ["auto", "windows"])
def test_every_market_is_answered_as_live_answers_it(
    engine: Engine, operations: Operations, slot: Slot, settings: Settings, method: str
) -> None:
    names = {"cross": "ema_cross", "bands": "bollinger_reversion"}
    register(engine, *(definition(name, implementation) for name, implementation in names.items()))
    symbols = [f"M{number}" for number in range(7)]
    store(engine, *symbols)
    spec = {**SPEC, "strategies": list(names), "method": method, "limits": {"batch_size": 3}}
    run = start(operations, parse_spec(spec)).run
    finish(slot, run.id)
    found = answers(operations, run.id)
    assert len(found) == len(symbols) * len(names)
    for seed, symbol in enumerate(symbols):
        window = Bars.from_candles(walk(symbol, COUNT, seed)).last(settings.worker.window)
        for name, implementation in names.items():
            live = evaluate(Registry(()).create(implementation, {}), window)
            row = found[symbol, name]
            assert (row["action"], row["price"], row["open_time"]) == (
                live.action,
                window.close[-1],
                START + (COUNT - 1) * timedelta(hours=1),
            )
            assert (row["strength"], row["edge_percent"]) == pytest.approx((live.strength, live.edge), rel=1e-6)
            if method == "windows":
                assert (row["strength"], row["edge_percent"]) == (live.strength, live.edge)


def test_a_run_ends_with_its_selection_and_validation(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("cross"))
    store(engine, *(f"M{number}" for number in range(9)))
    run = start(operations, parse_spec(SPEC)).run
    finish(slot, run.id)
    with operations.reading() as connection:
        ended, progress = runs.load_run(connection, run.id), runs.load_progress(connection, run.id)
    assert (ended.state, progress.units["succeeded"], progress.total) == (RunState.COMPLETE, 9, 9)
    report = load_selection(operations, run.id, 100)
    assert len(report.selected) == 2  # all of one category
    assert len(report.selected) + len(report.rejected) == 9
    assert {row["reason"] for row in report.rejected} <= {"category_full", "edge_below_minimum"}
    edges = [row["edge_percent"] for row in report.selected]
    assert edges == sorted(edges, reverse=True)
    assert ended.validation is not None
    assert ended.validation["figures"]["succeeded"] == 9
    assert {check["name"] for check in ended.validation["checks"] if not check["passed"]} <= {"throughput"}
