"""Answers: what a vectorised strategy says about any candle must be a signal, not only what it says of the last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.strategies.bars import Bars
from app.strategies.sdk import Signals
from app.strategies.verification.comparing import show_cell
from app.strategies.verification.probe import Probe, failed, spread
from app.strategies.verification.report import Check, Reason


def check_answers(probe: Probe, series: Sequence[Bars], most: int) -> None:
    """Check every cell after the warm-up, or a sample of windows; windows too short for the warm-up as well.

    Args:
        probe: of the strategy.
        series: to check on.
        most: windows to try at most.

    Raises:
        CheckFailedError: an answer is none; the first such candle.
    """
    for bars in series:
        for end in spread(0, len(bars) - 1, max(2, most // len(series))):
            probe.signal(bars.first(end + 1).last(probe.window))
        if probe.strategy.vectorised and len(bars) >= probe.warmup(bars):
            _check_cells(bars, probe.cells(bars), probe.warmup(bars) - 1)


def _check_cells(bars: Bars, cells: Signals, first: int) -> None:
    wrong = {
        "action to be -1, 0 or 1": np.abs(cells.action) > 1,
        "strength to be 0 to 1": ~((cells.strength >= 0.0) & (cells.strength <= 1.0)),
    }
    if cells.edge is not None:
        wrong["edge to be a finite number, or NaN for none"] = np.isinf(cells.edge)
    for name in ("stop", "target"):
        if (values := getattr(cells, name)) is not None:
            wrong[f"{name} to be a finite price above 0, or NaN for none"] = np.isinf(values) | (values <= 0.0)
    for expected, where in wrong.items():
        places = np.flatnonzero(where[first:])
        if places.size:
            index = first + int(places[0])
            raise failed(bars, Check.ANSWERS, Reason.INVALID, expected, show_cell(cells, index), index)
