"""Sharpe ratios by params."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.runs.report.document import UnitReport, build_document
from app.runs.report.grids import MOST_VALUES, build_grids
from tests.unit.runs.documents import document


def ranked(*variants: dict[str, Any], sharpes: list[float | None]) -> tuple[UnitReport, ...]:
    """Return units of one strategy with these params and Sharpe ratios, best first."""
    made = document(1, candles=100)
    metrics = made.units[0].metrics
    assert metrics is not None
    units = [
        made.units[0].model_copy(
            update={"id": number, "params": params, "metrics": metrics.model_copy(update={"sharpe": sharpe})}
        )
        for number, (params, sharpe) in enumerate(zip(variants, sharpes, strict=True))
    ]
    shown: dict[str, Any] = {"made_at": made.made_at, "run": made.run, "spec": {}, "data": (), "versions": {}}
    return build_document(**shown, units=units).units


def test_two_params_are_one_grid_with_the_median_of_all_symbols() -> None:
    variants = [{"fast": fast, "slow": slow, "atr": 14} for fast in (5, 10) for slow in (20, 100, 30)]
    (grid,) = build_grids(ranked(*variants, *variants, sharpes=[1, 2, 3, 4, 5, None, 3, 4, 9, 6, 7, None]))
    assert (grid.across, grid.down, grid.columns) == ("slow", "fast", ("20", "30", "100"))
    assert [(row, [cell.sharpe for cell in cells]) for row, cells in grid.rows] == [
        ("5", [2.0, 6.0, 3.0]),
        ("10", [5.0, None, 6.0]),
    ]
    assert [[cell.is_best for cell in cells] for _, cells in grid.rows] == [[False, True, False], [False] * 3]
    assert {cell.units for _, cells in grid.rows for cell in cells} == {2}


@pytest.mark.parametrize("names", ["a", "abc"])
def test_any_other_number_of_params_is_shown_one_by_one(names: str) -> None:
    variants = [dict.fromkeys(names, value) for value in (1, 2, 2.5)]
    grids = build_grids(ranked(*variants, sharpes=[1.0, 2.0, 3.0]))
    assert [(grid.across, grid.down, grid.columns) for grid in grids] == [
        (name, None, ("1", "2", "2.5")) for name in names
    ]


def test_many_values_are_shown_at_even_steps() -> None:
    values = range(100)
    (grid,) = build_grids(ranked(*({"a": value} for value in values), sharpes=list(np.linspace(0, 1, 100))))
    assert (len(grid.columns), grid.columns[0], grid.columns[-1], grid.left_out) == (MOST_VALUES, "0", "99", True)


def test_a_strategy_without_variants_has_no_grid() -> None:
    assert build_grids(ranked({"a": 1}, {"a": 1}, sharpes=[1.0, 2.0])) == []
