"""The report of a run, gathered from what a real run has stored: figures, curves, gaps, trials, selection."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.operations import Operations
from app.operations_report import build_report
from app.operations_runs import cancel, start
from app.runs.report.document import Document
from app.runs.report.html import to_html
from app.runs.report.table import to_csv
from app.runs.specification import parse_spec
from app.settings import BatchSettings
from app.storage.candles import record_candles
from app.storage.run_deletion import delete_details
from tests.building import definition, environment, register, walk
from tests.integration.api import serving
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


def evaluation(operations: Operations, slot: Slot, **changes: Any) -> int:
    """Evaluate three strategies on three markets: one fails, one market is stale."""
    register(operations.engine, definition("picky", "tests.quant.mortal:FailsOn", params={"symbol": "BBB"}))
    with operations.changing() as connection:
        record_candles(connection, walk("OLD", 400), "test")
    at = walk("AAA", 600)[-1].close_time.isoformat()
    asked = {"strategies": ["cross", "bad", "picky"], "selection": {"min_edge_percent": 0.0001, "per_category": 1}}
    return run(operations, slot, **{"kind": "evaluate", "from": None, "to": at, **asked, **changes})


def test_every_unit_of_an_evaluate_run_is_a_row(operations: Operations, slot: Slot) -> None:
    document = build_report(operations, evaluation(operations, slot))
    rows = list(csv.DictReader(StringIO(to_csv(document))))
    assert sorted((row["symbol"], row["strategy"]) for row in rows) == [
        (symbol, strategy) for symbol in ("AAA", "BBB", "OLD") for strategy in ("bad", "cross", "picky")
    ]
    # three units failed, and of the six others nobody was asked in the three of the stale market
    assert (document.run.succeeded, document.run.candles) == (6, 3)
    assert document.selection is not None
    (first, *_), position = rows, document.selection.selected[0]
    assert (first["rank"], first["symbol"], first["strategy"]) == ("1", position.symbol, position.strategy)
    assert first["open_time"] == walk("AAA", 600)[-1].open_time.isoformat()
    numbers = ("edge_percent", "price", "stop", "target", "size_percent", "risk_percent", "strength")
    assert [float(first[name]) for name in numbers] == [getattr(position, name) for name in numbers]
    assert (first["action"], first["state"], first["reason"], first["error"]) == ("1", "succeeded", "", "")
    by_unit = {(row["symbol"], row["strategy"]): row for row in rows}
    failed = by_unit["BBB", "picky"]
    assert (failed["state"], failed["reason"], failed["error"], failed["action"]) == (
        "failed",
        "failed",
        "ValueError: not this one",
        "",
    )
    assert (by_unit["OLD", "cross"]["state"], by_unit["OLD", "cross"]["reason"]) == ("stale", "stale")
    refused = [row for row in rows if row["detail"]]
    assert refused and all(row["reason"] and not row["rank"] for row in refused)
    assert len(rows) == len(document.selection.selected) + len(document.selection.rejected) == document.run.units
    assert Document.model_validate_json(document.model_dump_json()) == document


def test_units_without_an_answer_are_rows_too(operations: Operations, slot: Slot) -> None:
    at = walk("AAA", 600)[-1].close_time.isoformat()
    spec = {"kind": "evaluate", "strategies": ["cross"], "timeframe": "1h", "to": at}
    waiting = start(operations, parse_spec(spec)).run.id
    assert {answer.state for answer in build_report(operations, waiting).answers} == {"pending"}
    cancel(operations, waiting)
    document = build_report(operations, waiting)
    assert [(answer.symbol, answer.state, answer.rank) for answer in document.answers] == [
        ("AAA", "cancelled", None),
        ("BBB", "cancelled", None),
    ]
    assert document.in_force is not None and document.selection is None
    assert "Rules in force" in to_html(document)


def test_the_rules_in_force_and_the_code_are_told(operations: Operations, slot: Slot) -> None:
    document = build_report(operations, evaluation(operations, slot))
    assert document.in_force is not None
    as_of = walk("AAA", 600)[-1].close_time
    assert (document.in_force.as_of, document.in_force.max_age_candles) == (as_of, BatchSettings().max_age_candles)
    assert document.in_force.rules.per_category == 1 and document.in_force.rules.stop_loss_percent == 5.0
    assert not {"from", "trading"} & set(document.spec)
    page = to_html(document)
    told = " ".join(re.sub("<[^>]+>", " ", page).split())
    for text in (
        "min_edge_percent 0.0001 asked for",
        "per_category 1 asked for",
        "max_portfolio_risk_percent 20.0",
        "profit_target_percent 10.0",
        f"as of, UTC {as_of:%Y-%m-%d %H:%M} asked for",
        "picky 1 tests.quant.mortal:FailsOn symbol BBB",
        "ValueError: not this one",
    ):
        assert text in told, text
    assert "null" not in told.partition("What was asked for")[2].partition("Data")[0]
    assert "1970" not in page and "9999" not in page
    assert all(len(each.fingerprint) > 20 and each.fingerprint in page for each in document.variants)
    backtest = report(operations, slot, grid={"cross": {"fast": [5, 12]}})
    assert [(each.strategy, each.revision) for each in backtest.variants] == [("cross", None), ("cross", 1)]
    assert all(each.fingerprint in to_html(backtest) for each in backtest.variants)
    assert backtest.in_force is None and "Rules in force" not in to_html(backtest)


def test_positions_stay_in_the_csv_when_details_are_gone(operations: Operations, slot: Slot) -> None:
    number = evaluation(operations, slot)
    before = build_report(operations, number)
    with operations.changing() as connection:
        delete_details(connection, number, 0)
    after = build_report(operations, number)
    assert after.run.candles == before.run.candles == 3
    kept = [answer for answer in before.answers if answer.rank is not None]
    assert kept and after.run.trimmed
    names = ("rank", "symbol", "edge_percent", "stop", "target", "size_percent")
    for one, other in zip(kept, after.answers, strict=False):
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert len(after.answers) == len(before.answers)
    assert {answer.state for answer in after.answers[len(kept) :]} == {"deleted", "failed"}


def test_the_command_and_the_api_write_the_same_csv(
    operations: Operations, slot: Slot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    number = evaluation(operations, slot)
    for name, value in environment(operations.settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("app.cli.session.configure_logging", lambda _: None)
    file = tmp_path / "units.csv"
    assert CliRunner().invoke(cli, ["runs", "report", str(number), "--csv", str(file)]).exit_code == 0
    with serving(operations.settings, tmp_path / "api") as api:
        assert api.get(f"/api/runs/{number}/report?format=csv").body == file.read_text()
    assert len(file.read_text().splitlines()) == 1 + 9


def test_an_evaluate_run_tells_what_was_selected(operations: Operations, slot: Slot) -> None:
    at = walk("AAA", 600)[-1].close_time.isoformat()
    evaluate = {"kind": "evaluate", "from": None, "to": at, "selection": {"min_edge_percent": 0.0001}}
    document = report(operations, slot, **evaluate)
    assert document.selection is not None and document.units == ()
    latest = walk("AAA", 600)[-1].open_time
    assert {(each.candles, each.from_time, each.to_time) for each in document.data} == {
        (1, latest, datetime.fromisoformat(at))
    }
    page = to_html(document)
    assert "The latest candle of each market; the newest closed 2024-01-26 00:00" in page and "1970" not in page
    selection = document.selection
    assert {each.symbol for each in selection.selected} | {each.symbol for each in selection.rejected} == {"AAA", "BBB"}
    assert document.selection.rules.min_edge_percent == 0.0001
    assert to_html(document).count("AAA") >= 1
