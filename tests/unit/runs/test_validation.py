from __future__ import annotations

import pytest

from app.domain.runs import RunKind
from app.domain.selection import Candidate, Held, Selection, SelectionRules, override, select
from app.runs.validation import MOST_ERRORS, RunFigures, UnitError, ValidationRecord, validate

RULES = SelectionRules()
EVALUATE = RunKind.EVALUATE
GOOD = RunFigures(
    units=500,
    succeeded=500,
    markets=250,
    evaluations=500,
    elapsed_s=2.0,
    mean_ms=7.5,
    memory_mb=180.0,
    cpu_percent=190.0,
)


def candidates(count: int, edge: float = 20.0) -> list[Candidate]:
    return [
        Candidate(f"M{number}", "macd", f"category{number}", 1, edge + number, 0.5, 100.0) for number in range(count)
    ]


def failing(record: ValidationRecord) -> list[str]:
    assert record.passed == all(check.passed for check in record.checks)
    return [check.name for check in record.checks if not check.passed]


def test_a_good_run_passes_every_check() -> None:
    record = validate(EVALUATE, GOOD, RULES, select(candidates(4), [], RULES))
    assert failing(record) == []
    assert {check.name: check.found for check in record.checks} == {
        "finished": "500 succeeded, 0 failed, 0 cancelled",
        "throughput": "125.0 markets/s, 250.0 evaluations/s",
        "memory": "180 MiB",
        "portfolio risk": "2.00 %",
        "edges": "least 20.00 % of 4",
        "diversification": "most 1 (category3)",
        "stops and targets": "set on 4 of 4",
    }
    assert (record.markets_per_s, record.evaluations_per_s) == (125, 250)
    assert (record.success_percent, record.error_count) == (100, 0)


def test_a_backtest_is_measured_by_its_candles() -> None:
    slow = GOOD.model_copy(update={"elapsed_s": 400.0, "evaluations": 500_000})
    assert failing(validate(RunKind.BACKTEST, slow, RULES)) == []
    assert failing(validate(EVALUATE, slow, RULES)) == ["throughput"]
    assert validate(RunKind.BACKTEST, slow, RULES).checks[1].found == "1,250.0 evaluations/s"


def test_risk_that_was_there_before_is_said() -> None:
    held = (Held("M", "macd", 40.0, 32.5),)
    record = validate(EVALUATE, GOOD, RULES, Selection((), (), 32.5, 40.0), held)
    (risk,) = [check for check in record.checks if check.name == "portfolio risk"]
    assert risk.expected == "at most 20 % of the portfolio, or the 32.50 % held before"
    assert (risk.found, risk.passed) == ("32.50 %", True)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"succeeded": 499}, "finished"),
        ({"succeeded": 400, "cancelled": 100}, "finished"),
        ({"elapsed_s": 50.0}, "throughput"),
        ({"elapsed_s": 0.0}, "throughput"),
        ({"memory_mb": 2048.0}, "memory"),
    ],
)
def test_what_a_run_misses_is_named(changes, name) -> None:
    assert failing(validate(EVALUATE, GOOD.model_copy(update=changes), RULES)) == [name]


def test_failed_units_are_ended_units() -> None:
    record = validate(EVALUATE, GOOD.model_copy(update={"succeeded": 450, "failed": 50}), RULES)
    assert (failing(record), record.success_percent) == ([], 90.0)


def test_a_run_that_selects_nothing_promises_nothing_of_positions() -> None:
    record = validate(EVALUATE, GOOD, RULES)
    assert failing(record) == []
    assert [check.found for check in record.checks[4:]] == ["nothing was selected"] * 3


def test_a_selection_made_by_other_rules_is_found_out() -> None:
    loose = override(RULES, {"min_edge_percent": 0, "require_diversification": False, "max_portfolio_risk_percent": 50})
    held = (Held("OLD", "old", 1.0, 19.9),)
    crowd = [each._replace(category="one") for each in candidates(5, edge=1.0)]
    record = validate(EVALUATE, GOOD, RULES, select(crowd, held, loose), held)
    assert failing(record) == ["portfolio risk", "edges", "diversification"]


def test_what_was_over_the_limit_before_is_not_the_runs_fault() -> None:
    held = tuple(Held(name, "one", 10.0, 9.0) for name in "ABC")
    assert failing(validate(EVALUATE, GOOD, RULES, select(candidates(3), held, RULES), held)) == []


def test_a_position_without_protection_is_found_out() -> None:
    selection = select(candidates(2), [], RULES)
    bare = selection.selected[0]._replace(stop=101.0)
    record = validate(EVALUATE, GOOD, RULES, Selection((bare, selection.selected[1]), (), 1.0, 20.0))
    assert failing(record) == ["stops and targets"]
    assert record.checks[-1].found == "set on 1 of 2, not on M1"


def test_errors_keep_their_context_and_all_are_counted() -> None:
    error = UnitError(
        unit=7, strategy="macd", symbol="BTC-USD", timeframe="1h", error_class="ValueError", error="no", attempts=3
    )
    record = validate(EVALUATE, GOOD.model_copy(update={"errors": (error,) * 80}), RULES)
    assert (record.error_count, len(record.figures.errors)) == (80, MOST_ERRORS)
    assert ValidationRecord.model_validate_json(record.model_dump_json()) == record
