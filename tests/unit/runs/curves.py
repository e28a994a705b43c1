"""Curves and trades for the tests of runs, small enough to work by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from app.runs.shapes import Curve, Trade
from tests.building import START

DAY_MS = 86_400_000
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


def trade(profit: float, **changes: Any) -> Trade:
    """Build a closed trade of 2 units from 10 to 11."""
    made = Trade(FIRST_MS, FIRST_MS + DAY_MS, 1, 2.0, 10.0, 11.0, 0.5, profit, "signal")
    return made._replace(**changes)
