"""Higher timeframes: candles of one, made from a window's own, and which of them has closed at which candle.

They are a pure function of the window, whenever candles of another series arrive. Knows nothing of indicators.

- A higher candle has closed when a candle of the window closes at its end or later. An unfinished one does not count.
- One whose first candle is not in the window does not count: the window begins in the middle of it, or its first candle
  is missing there.
- Candles that are missing elsewhere leave a higher candle of those that are there; where all are missing there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from app.domain.candles import EPOCH, Timeframe
from app.strategies.bars import Bars, FloatArray, IntArray

_NOTHING_YET = np.array([np.nan])
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class Higher:
    """The closed candles of a higher timeframe, and their places in the window."""

    bars: Bars
    closed: IntArray
    """(n,) int64: how many of them have closed when each candle of the window closes."""

    def align(self, line: FloatArray) -> FloatArray:
        """Return for each candle of the window the value of the newest higher candle that has closed.

        Args:
            line: (closed higher candles,) float64.

        Returns:
            (n,) float64, NaN before the first one has closed.
        """
        aligned: FloatArray = np.concatenate((_NOTHING_YET, line))[self.closed]
        return aligned


def build_higher(bars: Bars, timeframe: Timeframe) -> Higher:
    """Make the closed candles of a higher timeframe from a window, on the grid that `Timeframe` has.

    Args:
        bars: the window, at least one candle, of a timeframe that divides the higher one.
        timeframe: the higher one.
    """
    span, length = timeframe.duration // _MS, bars.timeframe.duration // _MS
    opened = bars.open_time - (bars.open_time - _grid(timeframe)) % span
    starts = np.flatnonzero(np.concatenate(([True], opened[1:] != opened[:-1])))
    end = len(bars)
    if bars.open_time[-1] + length < opened[-1] + span:  # the last one is unfinished
        end, starts = int(starts[-1]), starts[:-1]
    if bars.open_time[0] != opened[0]:  # the first one has begun before the window
        starts = starts[1:]
    higher = _aggregate(bars, timeframe, opened, starts, end)
    return Higher(higher, np.searchsorted(higher.open_time + span, bars.open_time + length, side="right"))


def _aggregate(bars: Bars, timeframe: Timeframe, opened: IntArray, starts: IntArray, end: int) -> Bars:
    if not starts.size:
        none = np.empty(0)
        return Bars(bars.symbol, timeframe, np.empty(0, np.int64), none, none, none, none, none)
    ends = np.append(starts[1:], end) - 1
    return Bars(
        bars.symbol,
        timeframe,
        opened[starts],
        bars.open[starts],
        np.maximum.reduceat(bars.high[:end], starts),
        np.minimum.reduceat(bars.low[:end], starts),
        bars.close[ends],
        np.add.reduceat(bars.volume[:end], starts),
    )


def _grid(timeframe: Timeframe) -> int:
    """Return an open time of the timeframe, epoch milliseconds."""
    moment: datetime = timeframe.floor(EPOCH)
    return (moment - EPOCH) // _MS
