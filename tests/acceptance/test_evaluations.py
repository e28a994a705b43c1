"""Evaluate runs on real nodes: slots die in the middle, and the selection is made once, of the right answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.runs import RunState
from app.operations import Operations
from app.operations_evaluations import SelectionReport, load_selection
from app.operations_runs import Watch, start
from app.runs.specification import parse_spec
from app.settings import Settings
from app.storage import runs
from app.storage.candles import record_candles
from app.storage.runs import Progress, Run
from tests.building import START, definition, register, walk
from tests.cluster import WorkerProcess
from tests.conftest import Deploy
from tests.quant.pacing import read
from tests.waiting import wait_until

MARKETS, CANDLES = 40, 120
SPEC = {
    "kind": "evaluate",
    "timeframe": "1h",
    "to": (START + CANDLES * timedelta(hours=1)).isoformat(),
    "limits": {"batch_size": 8, "retries": 1},
    "selection": {"min_edge_percent": 0.05, "per_category": 5},
}


@pytest.fixture(scope="module")
def settings(deploy: Deploy) -> Iterator[Settings]:
    with deploy() as settings:
        operations = Operations(settings)
        for number in range(MARKETS):
            with operations.changing() as connection:
                record_candles(connection, walk(f"M{number:02d}", CANDLES, number), "test")
        operations.close()
        yield settings


@pytest.fixture
def node(settings: Settings, tmp_path: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess("evaluates", settings, tmp_path / "log", queues="batch")
    try:
        process.ready()
        yield process
    finally:
        process.teardown()


def finish(operations: Operations, run: Run, meanwhile: Callable[[], object] = lambda: None) -> Progress:
    """Watch a run to its end, as `runs watch` does."""
    watch, seen = Watch(operations, run.id), list[Progress]()

    def look() -> bool:
        meanwhile()
        seen.append(watch.look(datetime.now(UTC)))
        return seen[-1].state is RunState.COMPLETE

    try:
        wait_until(look, "the run is complete", 90.0)
    finally:
        watch.close()
    return seen[-1]


def what_came(report: SelectionReport) -> tuple[Any, Any]:
    """Return what does not depend on when a run was made."""
    chosen = [(row["symbol"], row["strategy"], row["edge_percent"], row["size_percent"]) for row in report.selected]
    return chosen, report.summary["rejected"]


def test_a_killed_slot_changes_nothing_of_the_selection(
    operations: Operations, node: WorkerProcess, tmp_path: Path
) -> None:
    left = tmp_path / "lines"
    params = {"file": str(left), "who": "me", "pause_ms": 10.0}
    register(operations.engine, definition("paced", "tests.quant.pacing:Paced", params=params), definition("cross"))
    spec = parse_spec({**SPEC, "strategies": ["paced", "cross"]})
    undisturbed = start(operations, spec).run
    finish(operations, undisturbed)
    left.unlink()
    run = start(operations, spec).run
    killed: set[int] = set()

    def kill_one() -> None:
        if not killed and len(lines := read(left)) > 5:
            killed.add(lines[-1].slot)
            os.kill(lines[-1].slot, signal.SIGKILL)

    progress = finish(operations, run, kill_one)
    assert killed
    assert progress.units == {"succeeded": 2 * MARKETS, "failed": 0, "pending": 0, "cancelled": 0}
    expected, found = (load_selection(operations, each.id, 1000) for each in (undisturbed, run))
    assert what_came(found) == what_came(expected)
    assert found.selected
    assert (
        len(found.selected) + len(found.rejected)
        == 2 * MARKETS
        == sum(found.summary["rejected"].values()) + len(found.selected)
    )


def test_a_market_that_kills_its_slot_fails_alone(operations: Operations, node: WorkerProcess) -> None:
    params = {"symbol": "M07"}
    register(operations.engine, definition("lethal", "tests.quant.mortal:DiesOn", params=params), definition("cross"))
    run = start(operations, parse_spec({**SPEC, "strategies": ["lethal", "cross"]})).run
    progress = finish(operations, run)
    assert progress.units == {"succeeded": 2 * MARKETS - 1, "failed": 1, "pending": 0, "cancelled": 0}
    report = load_selection(operations, run.id, 1000)
    failed = [row for row in report.rejected if row["reason"] == "failed"]
    assert [(row["symbol"], row["strategy"]) for row in failed] == [("M07", "lethal")]
    assert failed[0]["detail"] == "SlotDiedError: its slot died 2 times while it ran alone"
    with operations.reading() as connection:
        record = runs.load_run(connection, run.id).validation
    assert record is not None and record["error_count"] == 1
    assert node.status == "running"
