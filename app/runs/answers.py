"""What strategies say of many markets' latest candles, as arrays: one cell per unit of an evaluate run. Pure."""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from app.domain.jobs import Signal

#: Columns of an answer. Prices in quote currency, edge in percent of price; NaN where nothing is stated.
ANSWER = np.dtype(
    [
        ("status", np.int16),
        ("opened_ms", np.int64),
        ("action", np.int16),
        ("strength", np.float64),
        ("edge", np.float64),
        ("price", np.float64),
        ("stop", np.float64),
        ("target", np.float64),
    ]
)

#: Answers: (n,) of ANSWER.
Answers = npt.NDArray[np.void]

#: One cell, in the order of ANSWER.
Cell = tuple[int, int, int, float, float, float, float, float]


class UnitStatus(IntEnum):
    """What became of a unit of an evaluate run."""

    EVALUATED = 0
    FAILED = 1
    """The strategy raised, or answered what is no signal."""
    STALE = 2
    """The market's latest candle is too old, or there is none; the strategy was not asked."""
    SHORT_HISTORY = 3
    """Fewer candles than the strategy needs; it was not asked."""


def build_cell(signal: Signal, opened_ms: int, price: float) -> Cell:
    """Build the cell of a unit that was evaluated.

    Args:
        signal: what was said.
        opened_ms: open time of the candle, epoch ms.
        price: close of the candle, quote currency.
    """
    stated = (_number(signal.edge), price, _number(signal.stop), _number(signal.target))
    return (UnitStatus.EVALUATED, opened_ms, signal.action, signal.strength, *stated)


def build_empty_cell(status: UnitStatus, opened_ms: int = 0, price: float = math.nan) -> Cell:
    """Build the cell of a unit that has no signal."""
    return (status, opened_ms, 0, 0.0, math.nan, price, math.nan, math.nan)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
