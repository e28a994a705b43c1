"""What a node says of itself counts the units of runs as work: backtests and evaluations, and those that failed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.broker import create_celery
from app.operations import Operations
from app.operations_runs import start
from app.operations_workers import list_workers
from app.runs.specification import parse_spec
from app.settings import Settings
from app.storage.candles import record_candles
from tests.building import START, definition, register, walk
from tests.waiting import wait_until
from workers.heartbeat import Heartbeat
from workers.lifecycle import Slot, open_slot
from workers.shared import Shared, Tally

#: The soft limit of a unit and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

COUNT = 300
TO = (START + COUNT * timedelta(hours=1)).isoformat()


@pytest.fixture
def shared() -> Shared:
    return Shared()


@pytest.fixture
def slot(settings: Settings, shared: Shared, alarm: None) -> Iterator[Slot]:
    slot = open_slot(create_celery(settings), settings, shared)
    yield slot
    slot.close()


@pytest.fixture
def operations(operations: Operations) -> Operations:
    """Of a deployment with two strategies, one of which fails on one of two markets."""
    register(
        operations.engine,
        definition("cross"),
        definition("picky", "tests.quant.mortal:FailsOn", params={"symbol": "BAD"}),
    )
    for symbol in ("BAD", "GOOD"):
        with operations.changing() as connection:
            record_candles(connection, walk(symbol, COUNT), "test")
    return operations


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "evaluate", "to": TO},
        {"from": (START + (COUNT - 20) * timedelta(hours=1)).isoformat(), "to": TO},
    ],
    ids=["evaluate", "backtest"],
)
def test_units_of_runs_are_work_of_the_node(
    operations: Operations, slot: Slot, shared: Shared, settings: Settings, spec: dict[str, Any]
) -> None:
    run = start(operations, parse_spec({**spec, "strategies": ["cross", "picky"], "timeframe": "1h"})).run
    while slot.batch.work(run.id, 0):
        pass
    assert (shared.tally.processed, shared.tally.errors) == (4, 1), "two strategies on two markets; attempts are none"
    heard = hear(operations, settings, shared.tally)
    assert (heard["name"], heard["processed"], heard["errors"], heard["error_percent"]) == ("batch@here", 4, 1, 25.0)
    assert heard["uptime_s"] >= 0


def hear(operations: Operations, settings: Settings, tally: Tally) -> dict[str, Any]:
    """Return what `candlefleet workers` shows of a node with these counts."""
    heartbeat = Heartbeat(
        settings.database_dsn, node="batch@here", queues=["batch"], slots=lambda: 1, tally=tally, every_s=0.1
    )
    heartbeat.start()
    try:
        wait_until(lambda: list_workers(operations), "the node has reported")
        return list_workers(operations)[0]
    finally:
        heartbeat.stop()
