"""Curves small enough to store and to draw, without losing what matters: peaks, bottoms and the deepest fall. Pure."""

from __future__ import annotations

import numpy as np

from app.domain.base import Value
from app.runs.metrics import find_deepest_fall, find_drawdowns
from app.runs.shapes import Curve, IntArray

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
    kept = _choose(curve, points) if len(curve.equity) > points else np.arange(len(curve.equity))
    return SampledCurve(
        times_ms=tuple(curve.times_ms[kept].tolist()),
        equity=tuple(curve.equity[kept].tolist()),
        drawdown_percent=tuple((100 * find_drawdowns(curve.equity)[kept]).tolist()),
        close=tuple(curve.close[kept].tolist()),
    )


def _choose(curve: Curve, points: int) -> IntArray:
    count, fall = len(curve.equity), find_deepest_fall(curve.equity)
    edges = np.linspace(0, count, (points - _OWN_CELLS) // 2 + 1).astype(np.int64)
    parts = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    lowest = [first + int(np.argmin(curve.equity[first:end])) for first, end in parts]
    highest = [first + int(np.argmax(curve.equity[first:end])) for first, end in parts]
    return np.unique(np.array([0, count - 1, fall.peak, fall.bottom, *lowest, *highest], np.int64))
