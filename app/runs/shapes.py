"""What a unit of a run leaves behind: its closed trades and its curve. Knows nothing of how they came about."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Trade(NamedTuple):
    """One position from its entry to its end."""

    opened_ms: int
    """Open time of the candle at whose open it was entered, epoch ms."""
    closed_ms: int
    """Open time of the candle in which it ended, epoch ms."""
    side: int
    """-1 short, 1 long."""
    quantity: float
    """Base units."""
    entry_price: float
    """Quote currency, slippage included; so is the exit price."""
    exit_price: float
    fees: float
    """Of both ends, quote currency."""
    profit: float
    """After fees, quote currency."""
    reason: str
    """Why it ended: signal, stop, target, trailing."""


class Curve(NamedTuple):
    """How a unit went, one cell per candle of its range, after warm-up, oldest first."""

    times_ms: IntArray
    """(n,) int64: close times, epoch ms."""
    equity: FloatArray
    """(n,) float64: capital and open positions marked at the close, quote currency."""
    exposure: FloatArray
    """(n,) float64: share of the equity that is in the market; below 0 when short."""
    close: FloatArray
    """(n,) float64: close of the candle, quote currency."""
