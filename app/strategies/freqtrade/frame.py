"""The frame a strategy sees: candles as a DataFrame, gaps filled, and slower timeframes made of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas import DataFrame

from app.domain.candles import FIRST_MONDAY
from app.strategies.bars import Bars, IntArray
from app.strategies.freqtrade.timeframes import timeframe_to_msecs

#: Type of the open times, whatever pandas would choose: strategies turn them into numbers.
DATE = "datetime64[ms, UTC]"

_PRICES = ("open", "high", "low", "close")
_MERGED = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}


def build_frame(bars: Bars) -> DataFrame:
    """Build the frame of a window: columns date (aware UTC, milliseconds), open, high, low, close and volume (float64).

    Where candles are missing there is a flat one at the close before, without volume.

    Args:
        bars: oldest first, at least one.

    Returns:
        A frame of its own (nothing is shared) with a RangeIndex, one row per step of the grid.
    """
    times, places = grid(bars)
    frame = DataFrame({"date": pd.to_datetime(times, unit="ms", utc=True)}).astype({"date": DATE})
    for name in (*_PRICES, "volume"):
        column = np.full(len(times), np.nan)
        column[places] = getattr(bars, name)
        frame[name] = column
    if len(times) > len(bars):
        _fill(frame)
    return frame


def grid(bars: Bars) -> tuple[IntArray, IntArray]:
    """Return the open times of a window without gaps (epoch milliseconds) and the row of each candle among them.

    Raises:
        ValueError: the candles are not in ascending order on one grid.
    """
    step = timeframe_to_msecs(bars.timeframe)
    places, rest = np.divmod(bars.open_time - bars.open_time[0], step)
    if rest.any() or (np.diff(places) < 1).any():
        raise ValueError(f"expected candles of {bars.symbol} in ascending order on the {bars.timeframe} grid")
    return bars.open_time[0] + step * np.arange(places[-1] + 1), places


def _fill(frame: DataFrame) -> None:
    frame["close"] = frame["close"].ffill()
    for name in ("open", "high", "low"):
        frame[name] = frame[name].fillna(frame["close"])
    frame["volume"] = frame["volume"].fillna(0.0)


def resample(frame: DataFrame, timeframe: str, slower: str) -> DataFrame:
    """Make candles of a slower timeframe; one that the frame does not hold from open to close is left out.

    Args:
        frame: as `build_frame` makes it.
        timeframe: of the frame.
        slower: a multiple of it.

    Raises:
        ValueError: not a multiple.
    """
    step, long = timeframe_to_msecs(timeframe), timeframe_to_msecs(slower)
    if long % step:
        raise ValueError(f"expected a multiple of {timeframe}, found {slower}")
    if long == step:
        return frame.copy()
    opens = _opens(frame, slower, long)
    merged = frame[list(_MERGED)].groupby(opens).agg(_MERGED)
    whole = frame.groupby(opens).size() == long // step
    merged = merged[whole].rename_axis("date").reset_index()
    merged["date"] = pd.to_datetime(merged["date"], unit="ms", utc=True)
    return merged.astype({"date": DATE})


def _opens(frame: DataFrame, timeframe: str, length_ms: int) -> IntArray:
    times: IntArray = frame["date"].dt.tz_localize(None).to_numpy().astype("datetime64[ms]").astype(np.int64)
    anchor = int(FIRST_MONDAY.timestamp() * 1000) if timeframe.endswith("w") else 0
    return times - (times - anchor) % length_ms
