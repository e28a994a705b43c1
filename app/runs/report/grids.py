"""How a strategy's figures depend on its params: whether its best unit stands on a plateau or on a spike. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from app.runs.report.document import UnitReport, write_params

#: Values of a param that a table has room for; those of more are shown at even steps, both ends included.
MOST_VALUES = 30


class Cell(NamedTuple):
    """The units that have one value of a param, or one of each of two."""

    sharpe: float | None
    """Median of their Sharpe ratios; None when none of them has one."""
    units: int
    """That were measured."""
    is_best: bool
    """Whether the best unit of the strategy is one of them."""


class Grid(NamedTuple):
    """Median Sharpe ratios of a strategy's units by two of its params, or by one: then there is one row."""

    strategy: str
    across: str
    """Param whose values the columns have."""
    down: str | None
    """Param whose values the rows have."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    left_out: bool
    """Whether values are left out."""


def build_grids(units: Sequence[UnitReport]) -> list[Grid]:
    """Lay out the Sharpe ratios of every strategy that has variants: two params in one grid, other numbers one by one.

    Args:
        units: best first.
    """
    by_strategy: dict[str, list[UnitReport]] = defaultdict(list)
    for unit in units:
        if unit.metrics is not None and unit.differing:
            by_strategy[unit.strategy].append(unit)
    return [grid for strategy, known in by_strategy.items() for grid in _build(strategy, known)]


def _build(strategy: str, units: Sequence[UnitReport]) -> Iterable[Grid]:
    names = units[0].differing
    if len(names) == 2:
        fewer, more = sorted(names, key=lambda name: len({_value(unit, name) for unit in units}))
        return [_lay_out(strategy, units, more, fewer)]
    return [_lay_out(strategy, units, name, None) for name in names]


def _lay_out(strategy: str, units: Sequence[UnitReport], across: str, down: str | None) -> Grid:
    found: dict[tuple[str, str], list[UnitReport]] = defaultdict(list)
    for unit in units:
        found[_value(unit, down), _value(unit, across)].append(unit)
    columns, rows = _values(units, across), _values(units, down)
    shown_columns, shown_rows = _spread(columns), _spread(rows)
    best = units[0]
    return Grid(
        strategy=strategy,
        across=across,
        down=down,
        columns=tuple(shown_columns),
        rows=tuple(
            (row, tuple(_cell(found.get((row, column), ()), best) for column in shown_columns)) for row in shown_rows
        ),
        left_out=(len(shown_columns), len(shown_rows)) != (len(columns), len(rows)),
    )


def _cell(units: Sequence[UnitReport], best: UnitReport) -> Cell:
    sharpes = [unit.metrics.sharpe for unit in units if unit.metrics and unit.metrics.sharpe is not None]
    return Cell(statistics.median(sharpes) if sharpes else None, len(units), any(unit.id == best.id for unit in units))


def _values(units: Sequence[UnitReport], name: str | None) -> list[str]:
    """Return the values of a param as they are written, numbers in their order before anything else."""
    written = {_value(unit, name): unit.params.get(name) if name else None for unit in units}
    return sorted(written, key=lambda text: _order(text, written[text]))


def _order(text: str, value: JsonValue) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return not is_number, float(value) if is_number else 0.0, text  # type: ignore[arg-type]  # a number, as told


def _value(unit: UnitReport, name: str | None) -> str:
    return "" if name is None else write_params({"": unit.params.get(name)}).strip()


def _spread(values: Sequence[str]) -> list[str]:
    if len(values) <= MOST_VALUES:
        return list(values)
    step = (len(values) - 1) / (MOST_VALUES - 1)
    return [values[round(place * step)] for place in range(MOST_VALUES)]
