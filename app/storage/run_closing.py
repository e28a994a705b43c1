"""The end of a run: its positions are selected, its validation is recorded, and it is complete, in one transaction.

Whoever finds that nothing is pending may close a run: the row of the run is locked meanwhile, so that it happens once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import Connection as DriverConnection
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from app.domain.runs import RunKind
from app.domain.selection import Held, Reason, Selected, SelectionRules
from app.runs.choosing import Author, Choice, Refusal, choose
from app.runs.validation import RunFigures, UnitError, ValidationRecord, validate
from app.storage.copying import build_rows, copy_rows, floats, ints, word
from app.storage.slices import load_answers

# whoever else is closing it holds the lock, and will have done it
_RUN = """
    SELECT id, kind, units, selection, timeframe, jsonb_array_length(series) AS markets FROM runs WHERE id = %(run)s
"""
_LOCK = f"{_RUN} AND state = 'running' FOR UPDATE SKIP LOCKED"
_PENDING = """
    SELECT EXISTS (SELECT FROM units WHERE run_id = %(run)s AND state = 'pending')
        OR EXISTS (SELECT FROM slices WHERE run_id = %(run)s AND state = 'pending')
"""
_COMPLETE = """
    UPDATE runs SET state = 'complete', finished_at = clock_timestamp(), selection = %(selection)s,
                    validation = %(validation)s
    WHERE id = %(run)s
"""
_VALIDATED = "UPDATE runs SET validation = %(validation)s WHERE id = %(run)s"
_AUTHORS = "SELECT strategy, category FROM variants WHERE run_id = %(run)s ORDER BY number"
_FORGET = ("DELETE FROM selected WHERE run_id = %(run)s", "DELETE FROM rejected WHERE run_id = %(run)s")

# without a stop, all that a position is worth may be lost; one whose order the risk cap refused is nobody's
_HELD = """
    SELECT p.symbol, s.category, p.size_percent,
           p.size_percent * coalesce(abs(p.entry_price - p.stop) / nullif(p.entry_price, 0), 1)
    FROM positions p JOIN strategies s ON s.id = p.strategy_id
    WHERE p.side <> 0 AND p.risk_percent > 0 ORDER BY p.symbol, s.category, p.strategy_id, p.timeframe
"""

# The time in which slots worked on it: pauses are left out. A slot that replaced another has not lived beside it.
_FIGURES = """
    WITH slot AS (SELECT worker, min(started_at) AS first, max(finished_at) AS last, max(memory_mb) AS most
                  FROM {table} WHERE run_id = %(run)s AND memory_mb IS NOT NULL GROUP BY worker),
         moment AS (SELECT sum(beside.most) AS held
                    FROM slot JOIN slot AS beside ON slot.first BETWEEN beside.first AND beside.last
                    GROUP BY slot.worker)
    SELECT coalesce(sum({size}) FILTER (WHERE state = 'cancelled'), 0)::int AS cancelled,
           coalesce((SELECT sum(extract(epoch FROM upper(busy) - lower(busy)))
                     FROM unnest((SELECT range_agg(tstzrange(started_at, finished_at)) FROM {table}
                                  WHERE run_id = %(run)s AND started_at <= finished_at)) AS busy), 0)::float8
             AS elapsed_s,
           coalesce(sum(elapsed_ms), 0)::float8 AS elapsed_ms, coalesce(sum(cpu_ms), 0)::float8 AS cpu_ms,
           (SELECT coalesce(max(held), 0) FROM moment)::float8 AS memory_mb
    FROM {table} WHERE run_id = %(run)s
"""
#: How many units a row of either table is.
_SIZES = {"units": "1", "slices": "cardinality(symbols) * cardinality(variants)"}
_EVALUATED = """
    SELECT count(DISTINCT symbol), coalesce(sum(candles), 0)
    FROM units WHERE run_id = %(run)s AND state = 'succeeded'
"""
_ANSWERED = """
    SELECT count(DISTINCT symbol) FROM slices CROSS JOIN unnest(symbols) AS symbol
    WHERE run_id = %(run)s AND state = 'done'
"""
_FAILED_UNITS = """
    SELECT u.number, v.strategy, u.symbol, u.error_class, u.error, u.attempts
    FROM units u JOIN variants v ON v.run_id = u.run_id AND v.number = u.variant
    WHERE u.run_id = %(run)s AND u.state = 'failed' ORDER BY u.number
"""
_FAILED_EVALUATIONS = (
    "SELECT unit, error_class, error, attempts FROM evaluation_errors WHERE run_id = %(run)s ORDER BY unit"
)


@dataclass(frozen=True, slots=True)
class _Ending:
    """What was found and made of a run."""

    kind: RunKind
    figures: RunFigures
    rules: SelectionRules
    selection: dict[str, Any] | None = None
    choice: Choice | None = None
    held: tuple[Held, ...] = ()

    def validate(self) -> ValidationRecord:
        """Check what a run promises."""
        selection = self.choice.selection if self.choice else None
        return validate(self.kind, self.figures, self.rules, selection, self.held)


def close_run(driver: DriverConnection[Any], run_id: int) -> bool:
    """Complete a run of which nothing is pending; tell whether that was done now. Idempotent."""
    values = {"run": run_id}
    with driver.transaction(), driver.cursor(row_factory=namedtuple_row) as cursor:
        run: Any = cursor.execute(_LOCK, values).fetchone()
        if run is None or driver.execute(_PENDING, values).fetchone() == (True,):
            return False
        ending = _end_evaluation(driver, run) if run.kind == RunKind.EVALUATE else _end_backtest(driver, run)
        results = {"selection": None if ending.selection is None else Jsonb(ending.selection)}
        driver.execute(_COMPLETE, {**values, **results, "validation": _record(ending)})
    return True


def validate_cancelled(driver: DriverConnection[Any], run_id: int) -> None:
    """Record the validation of a run that was cancelled, in the caller's transaction; it selects nothing."""
    with driver.cursor(row_factory=namedtuple_row) as cursor:
        run: Any = cursor.execute(_RUN, {"run": run_id}).fetchone()
    ending = _stop_evaluation(driver, run) if run.kind == RunKind.EVALUATE else _end_backtest(driver, run)
    driver.execute(_VALIDATED, {"run": run_id, "validation": _record(ending)})


def _record(ending: _Ending) -> Jsonb:
    return Jsonb(ending.validate().model_dump(mode="json"))


def load_held(driver: DriverConnection[Any]) -> tuple[Held, ...]:
    """Load the positions that are open now, of all strategies."""
    return tuple(Held(*row) for row in driver.execute(_HELD))


def _end_backtest(driver: DriverConnection[Any], run: Any) -> _Ending:
    rows = driver.execute(_FAILED_UNITS, {"run": run.id}).fetchall()
    errors = [_error(run, number, strategy, symbol, rest) for number, strategy, symbol, *rest in rows]
    markets, candles = driver.execute(_EVALUATED, {"run": run.id}).fetchone() or (0, 0)
    figures = _figures(driver, run, "units", errors, markets=markets, evaluations=candles)
    return _Ending(RunKind.BACKTEST, figures, SelectionRules())


def _end_evaluation(driver: DriverConnection[Any], run: Any) -> _Ending:
    values = {"run": run.id}
    authors = [Author(*row) for row in driver.execute(_AUTHORS, values)]
    answers, symbols = load_answers(driver, run.id, run.markets, len(authors))
    rules, held = SelectionRules(**run.selection["rules"]), load_held(driver)
    choice = choose(answers, symbols, authors, held, rules)
    for forget in _FORGET:  # of the time before failed units were tried again
        driver.execute(forget, values)
    save_choice(driver, run.id, choice)
    figures = _evaluated(driver, run, authors, symbols, run.markets)
    return _Ending(RunKind.EVALUATE, figures, rules, _describe(choice, rules, held), choice, held)


def _stop_evaluation(driver: DriverConnection[Any], run: Any) -> _Ending:
    values = {"run": run.id}
    authors = [Author(*row) for row in driver.execute(_AUTHORS, values)]
    _, symbols = load_answers(driver, run.id, run.markets, len(authors))
    (answered,) = driver.execute(_ANSWERED, values).fetchone() or (0,)
    figures = _evaluated(driver, run, authors, symbols, answered)
    return _Ending(RunKind.EVALUATE, figures, SelectionRules(**run.selection["rules"]), held=load_held(driver))


def _evaluated(
    driver: DriverConnection[Any], run: Any, authors: Sequence[Author], symbols: Sequence[str], answered: int
) -> RunFigures:
    errors = [
        _error(run, unit, authors[unit % len(authors)].strategy, symbols[unit // len(authors)], rest)
        for unit, *rest in driver.execute(_FAILED_EVALUATIONS, {"run": run.id})
    ]
    return _figures(driver, run, "slices", errors, markets=answered - _count_lost(errors, len(authors)))


def _count_lost(errors: Sequence[UnitError], variants: int) -> int:
    """Count the markets on which every strategy failed."""
    failed = Counter(error.unit // variants for error in errors)
    return sum(count == variants for count in failed.values())


def _describe(choice: Choice, rules: SelectionRules, held: Sequence[Held]) -> dict[str, Any]:
    return {
        "rules": rules.model_dump(mode="json"),
        "held": [each._asdict() for each in held],
        "selected": len(choice.selected),
        "rejected": choice.counts,
        "risk_percent": choice.selection.risk_percent,
        "exposure_percent": choice.selection.exposure_percent,
    }


def _figures(
    driver: DriverConnection[Any],
    run: Any,
    table: str,
    errors: Sequence[UnitError],
    *,
    markets: int,
    evaluations: int | None = None,
) -> RunFigures:
    with driver.cursor(row_factory=namedtuple_row) as cursor:
        question = _FIGURES.format(table=table, size=_SIZES[table])
        found: Any = cursor.execute(question, {"run": run.id}).fetchone()
    succeeded = run.units - len(errors) - found.cancelled
    return RunFigures(
        units=run.units,
        succeeded=succeeded,
        failed=len(errors),
        cancelled=found.cancelled,
        markets=markets,
        evaluations=succeeded if evaluations is None else evaluations,
        elapsed_s=found.elapsed_s,
        mean_ms=found.elapsed_ms / run.units,
        memory_mb=found.memory_mb,
        cpu_percent=found.cpu_ms / 10 / found.elapsed_s if found.elapsed_s else 0.0,
        errors=tuple(errors),
    )


def _error(run: Any, unit: int, strategy: str, symbol: str, rest: Sequence[Any]) -> UnitError:
    error_class, error, attempts = rest
    names = {"unit": unit, "strategy": strategy, "symbol": symbol, "timeframe": run.timeframe}
    return UnitError(**names, error_class=error_class, error=error, attempts=max(1, attempts))


def save_choice(driver: DriverConnection[Any], run: int, choice: Choice) -> None:
    """Write what was selected and what was not, in the caller's transaction."""
    columns = ("run_id", "unit", "rank", "stop", "target", "size_percent", "risk_percent")
    copy_rows(driver, "selected", columns, [_selected_row(run, *each) for each in enumerate(choice.selected, 1)])
    turned = [(reason, units) for reason, units in choice.turned_away.items() if len(units)]
    rows = [build_rows(len(units), (ints(run), ints(units), word(reason))) for reason, units in turned]
    copy_rows(driver, "rejected", ("run_id", "unit", "reason"), rows)
    copy_rows(driver, "rejected", ("run_id", "unit", "reason", "detail"), _refused_rows(run, choice.refused))


def _selected_row(run: int, rank: int, chosen: tuple[int, Selected]) -> bytes:
    unit, position = chosen
    levels = (position.stop, position.target, position.size_percent, position.risk_percent)
    return build_rows(1, (ints(run), ints(unit), ints(rank), *map(floats, levels)))


def _refused_rows(run: int, refused: Sequence[Refusal]) -> Iterator[bytes]:
    """Build the rows of equal texts together: there are thousands of rows, and few texts."""
    by_text: dict[tuple[Reason, str], list[int]] = {}
    for unit, reason, detail in refused:
        by_text.setdefault((reason, detail), []).append(unit)
    for (reason, detail), units in by_text.items():
        yield build_rows(len(units), (ints(run), ints(np.array(units)), word(reason), word(detail)))
