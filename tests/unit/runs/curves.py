"""Curves and trades for the tests of runs, small enough to work by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.runs.shapes import Curve, Trade, Trades
from tests.building import START

DAY_MS = 86_400_000
#: Of a unit that never traded, or whose trades do not matter.
NO_TRADES = Trades.build([])
FIRST_MS = round(START.timestamp() * 1000)


def curve(equity: npt.ArrayLike, step_ms: int = DAY_MS, **columns: Any) -> Curve:
    """Build a curve of regular candles; what is not given is a market that stands still, and no position."""
    values = np.asarray(equity, np.float64)
    count = len(values)
    return Curve(
        np.asarray(columns.get("times_ms", FIRST_MS + step_ms * np.arange(count)), np.int64),
        values,
        np.asarray(columns.get("exposure", np.zeros(count)), np.float64),
        np.asarray(columns.get("close", np.full(count, 50.0)), np.float64),
    )


def trades(*profits: float, fees: Sequence[float] | None = None) -> Trades:
    """Build closed trades of 2 units from 10 to 11, each with fees of 0.5 unless they are given."""
    rows = zip(profits, fees or [0.5] * len(profits), strict=True)
    return Trades.build(
        Trade(FIRST_MS, FIRST_MS + DAY_MS, 1, 2.0, 10.0, 11.0, paid, profit, "signal") for profit, paid in rows
    )
