"""What a unit of a run leaves behind: its closed trades and its curve. Knows nothing of how they came about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.domain.positions import Reason

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CodeArray = npt.NDArray[np.int8]

#: Why positions end; a column of reasons holds places in it. Stored with every trade: only ever add at the end.
REASONS = (Reason.SIGNAL, Reason.STOP, Reason.TARGET, Reason.TRAILING)


#: Of the columns of trades.
_KINDS: tuple[type[np.generic], ...] = (np.int64, np.int64, np.int8, *[np.float64] * 5, np.int8)


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


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades as columns, oldest first, each (n,), with the meanings of `Trade`: a unit may have thousands."""

    opened_ms: IntArray
    closed_ms: IntArray
    side: CodeArray
    quantity: FloatArray
    entry_price: FloatArray
    exit_price: FloatArray
    fees: FloatArray
    profit: FloatArray
    reason: CodeArray
    """Places in `REASONS`."""

    @classmethod
    def build(cls, rows: Iterable[Trade]) -> Trades:
        """Build the columns of some trades."""
        coded = [(*trade[:-1], REASONS.index(Reason(trade.reason))) for trade in rows]
        columns = zip(*coded, strict=True) if coded else [()] * len(_KINDS)
        return cls(*[np.array(column, kind) for column, kind in zip(columns, _KINDS, strict=True)])

    def __len__(self) -> int:
        return len(self.opened_ms)

    def __iter__(self) -> Iterator[Trade]:
        *numbers, codes = (getattr(self, field.name).tolist() for field in fields(self))
        return map(Trade, *numbers, (REASONS[code].value for code in codes))


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
