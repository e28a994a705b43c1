"""Curves small enough to store and to draw, without losing what matters: peaks, bottoms and the deepest fall. Pure."""

from __future__ import annotations

import numpy as np

from app.domain.base import Value
from app.runs.metrics import find_deepest_fall, find_drawdowns
from app.runs.shapes import Curve, FloatArray, IntArray

#: Cells of a sampled curve: more than a page has pixels for.
MOST_POINTS = 500

#: Cells that are kept beside the lowest and highest of each part: both ends, and the deepest fall's peak and bottom.
_OWN_CELLS = 4


class SampledCurve(Value):
    """Some cells of a curve, oldest first; all columns have the same length."""

    times_ms: tuple[int, ...]
    """Close times, epoch ms."""
    equity: tuple[float, ...]
    """Quote currency."""
    drawdown_percent: tuple[float, ...]
    """Below the highest equity so far, of all cells and not only of the kept ones; 0 to 100."""
    close: tuple[float, ...]
    """Quote currency: what holding would have followed."""


def sample(curve: Curve, points: int = MOST_POINTS) -> SampledCurve:
    """Keep at most so many cells of a curve: the lowest and highest equity of each part, and the deepest fall.

    Args:
        curve: at least one candle, its first equity above 0.
        points: at least 8; a curve that is not longer is kept as it is.
    """
    drawdowns = find_drawdowns(curve.equity)
    kept = _choose(curve.equity, drawdowns, points) if len(drawdowns) > points else np.arange(len(drawdowns))
    return SampledCurve(
        times_ms=tuple(curve.times_ms[kept].tolist()),
        equity=tuple(curve.equity[kept].tolist()),
        drawdown_percent=tuple((100 * drawdowns[kept]).tolist()),
        close=tuple(curve.close[kept].tolist()),
    )


def _choose(equity: FloatArray, drawdowns: FloatArray, points: int) -> IntArray:
    count, fall = len(equity), find_deepest_fall(equity, drawdowns)
    width = -(-count // ((points - _OWN_CELLS) // 2))  # of a part; the last one may be narrower
    whole = count // width * width
    firsts, parts = np.arange(0, whole, width), equity[:whole].reshape(-1, width)
    extremes = [firsts + parts.argmin(axis=1), firsts + parts.argmax(axis=1)]
    if whole < count:
        rest = equity[whole:]
        extremes.append(whole + np.array([rest.argmin(), rest.argmax()]))
    return np.unique(np.concatenate([[0, count - 1, fall.peak, fall.bottom], *extremes]))
