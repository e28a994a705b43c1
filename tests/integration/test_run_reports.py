"""The report of a run, gathered from what a real run has stored: figures, curves, gaps, trials, selection."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest

from app.operations import Operations
from app.operations_report import build_report
from app.operations_runs import start
from app.runs.report.document import Document
from app.runs.report.html import to_html
from app.runs.report.table import to_csv
from app.runs.specification import parse_spec
from app.storage.candles import record_candles
from tests.building import definition, register, walk
from workers.lifecycle import Slot

#: The soft limit of a unit and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

#: Candles that are not stored: a hole of one and a hole of three hours.
MISSING = (250, 400, 401, 402)
SPEC = {"strategies": ["cross"], "timeframe": "1h", "from": "2024-01-08T00:00Z", "to": "2024-01-22T00:00Z"}
HOURS = 14 * 24


@pytest.fixture
def operations(operations: Operations) -> Operations:
    """Of a deployment with two strategies and two series, one of them with gaps."""
    register(operations.engine, definition("cross"), definition("bad", "tests.quant.misbehaving:Raises"))
    with operations.changing() as connection:
        whole, broken = walk("AAA", 600), [each for n, each in enumerate(walk("BBB", 600, 8)) if n not in MISSING]
        record_candles(connection, [*whole, *broken], "test")
    return operations


def run(operations: Operations, slot: Slot, **changes: Any) -> int:
    spec = {name: value for name, value in {**SPEC, **changes}.items() if value is not None}
    started = start(operations, parse_spec(spec)).run
    while slot.batch.work(started.id, 0):
        pass
    return started.id


def report(operations: Operations, slot: Slot, **changes: Any) -> Document:
    return build_report(operations, run(operations, slot, **changes))


def test_figures_curves_and_data_of_a_backtest(operations: Operations, slot: Slot) -> None:
    document = report(operations, slot, grid={"fast": [5, 8]})
    assert (document.run.units, document.run.succeeded, document.run.candles) == (4, 4, 4 * HOURS - 2 * len(MISSING))
    assert [unit.metrics.sharpe for unit in document.units if unit.metrics] == sorted(
        (unit.metrics.sharpe for unit in document.units if unit.metrics), key=lambda value: -(value or 0)
    )
    for unit in document.units:
        assert unit.metrics and unit.curve and unit.deflated
        assert unit.metrics.candles == HOURS - (len(MISSING) if unit.symbol == "BBB" else 0)
        gained = 100 * (unit.curve.equity[-1] / unit.curve.equity[0] - 1)
        assert gained == pytest.approx(unit.metrics.total_return_percent)
        assert max(unit.curve.drawdown_percent) == pytest.approx(unit.metrics.max_drawdown_percent)
    whole, broken = document.data
    assert (whole.symbol, whole.candles, whole.gaps, whole.missing) == ("AAA", HOURS, 0, 0)
    assert (whole.from_time, whole.to_time) == (datetime(2024, 1, 8, tzinfo=UTC), datetime(2024, 1, 22, tzinfo=UTC))
    assert (broken.symbol, broken.gaps, broken.missing, broken.longest_gap_s) == ("BBB", 2, 4, 3 * 3600)
    assert document.validation is not None and document.validation.figures.succeeded == 4


def test_the_trials_of_earlier_runs_on_the_same_data_count(operations: Operations, slot: Slot) -> None:
    def tried(**changes: Any) -> int:
        (unit, *_) = report(operations, slot, symbols=["AAA"], **changes).units
        assert unit.deflated is not None
        return unit.deflated.trials

    assert tried() == 1
    assert tried() == 1, "the same thing again is no other try"
    assert tried(grid={"fast": [5, 8]}) == 3
    assert tried(grid={"fast": [9]}, to="2024-01-15T00:00Z") == 4, "the ranges overlap"
    assert tried(grid={"fast": [9]}, **{"from": "2024-01-22T00:00Z", "to": "2024-01-24T00:00Z"}) == 1


def test_the_same_in_every_form(operations: Operations, slot: Slot) -> None:
    document = report(operations, slot, strategies=["cross", "bad"])
    rows = list(csv.DictReader(StringIO(to_csv(document))))
    assert [(row["strategy"], row["symbol"], row["state"]) for row in rows] == [
        (unit.strategy, unit.symbol, unit.state) for unit in document.units
    ]
    assert float(rows[0]["sharpe"]) == document.units[0].metrics.sharpe  # type: ignore[union-attr]
    assert Document.model_validate_json(document.model_dump_json()) == document
    page = to_html(document)
    assert "no idea what to do" in page and "BBB" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_an_evaluate_run_tells_what_was_selected(operations: Operations, slot: Slot) -> None:
    at = walk("AAA", 600)[-1].close_time.isoformat()
    evaluate = {"kind": "evaluate", "from": None, "to": at, "selection": {"min_edge_percent": 0.0001}}
    document = report(operations, slot, **evaluate)
    assert document.selection is not None and document.units == ()
    assert {(each.candles, each.to_time) for each in document.data} == {(1, datetime.fromisoformat(at))}
    page = to_html(document)
    assert "The latest candle of each market; the newest closed 2024-01-26 00:00" in page and "1970" not in page
    selection = document.selection
    assert {each.symbol for each in selection.selected} | {each.symbol for each in selection.rejected} == {"AAA", "BBB"}
    assert document.selection.rules.min_edge_percent == 0.0001
    assert to_html(document).count("AAA") >= 1
