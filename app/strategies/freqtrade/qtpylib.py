"""What strategies use of qtpylib, under its names, written from its documented behaviour.

Series are (n,), oldest first; frames have the columns open, high, low, close and volume. Cells without enough
history are NaN unless the function says otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas import DataFrame, Series


def crossed(series1: Any, series2: Any, direction: str | None = None) -> Series:
    """Tell where the first series has just gone through the second (a series or a number).

    Args:
        series1: what moves.
        series2: what is crossed.
        direction: ``above``, ``below``, or None for either.

    Returns:
        (n,) bool: the side now is strict, the side one row before may be equal.
    """
    first = pd.Series(series1) if isinstance(series1, np.ndarray) else series1
    second = series2 if isinstance(series2, Series) else pd.Series(series2, index=first.index)
    before, level = first.shift(1), second.shift(1)
    above = (first > second) & (before <= level)
    below = (first < second) & (before >= level)
    return {"above": above, "below": below}.get(direction or "", above | below)


def crossed_above(series1: Any, series2: Any) -> Series:
    """Tell where the first series has just risen above the second."""
    return crossed(series1, series2, "above")


def crossed_below(series1: Any, series2: Any) -> Series:
    """Tell where the first series has just fallen below the second."""
    return crossed(series1, series2, "below")


def rolling_mean(series: Any, window: int = 200, min_periods: int | None = None) -> Series:
    """Return the mean of the last `window` cells."""
    if _is_plain(series, window, min_periods):
        return _each_window(series, window, np.mean)
    return pd.Series(series).rolling(window, min_periods=_least(window, min_periods)).mean()


def rolling_std(series: Any, window: int = 200, min_periods: int | None = None) -> Series:
    """Return the sample deviation of the last `window` cells."""
    if _is_plain(series, window, min_periods):
        return _each_window(series, window, np.std, ddof=1)
    return pd.Series(series).rolling(window, min_periods=_least(window, min_periods)).std()


def rolling_min(series: Any, window: int = 14, min_periods: int | None = None) -> Series:
    """Return the lowest of the last `window` cells."""
    return pd.Series(series).rolling(window, min_periods=_least(window, min_periods)).min()


def rolling_max(series: Any, window: int = 14, min_periods: int | None = None) -> Series:
    """Return the highest of the last `window` cells."""
    return pd.Series(series).rolling(window, min_periods=_least(window, min_periods)).max()


def rolling_weighted_mean(series: Any, window: int = 200, min_periods: int | None = None) -> Series:
    """Return the exponentially weighted mean of span `window`."""
    return pd.Series(series).ewm(span=window, min_periods=_least(window, min_periods)).mean()


def rolling_vwap(bars: DataFrame, window: int = 200, min_periods: int | None = None) -> Series:
    """Return the typical price weighted by volume over the last `window` rows; without volume the value before it."""
    least = _least(window, min_periods)
    worth = (typical_price(bars) * bars["volume"]).rolling(window, min_periods=least).sum()
    average = worth / bars["volume"].rolling(window, min_periods=least).sum()
    return average.replace([np.inf, -np.inf], np.nan).ffill()


def vwap(bars: DataFrame) -> Series:
    """Refuse: an average over all rows would depend on where the frame starts; see `rolling_vwap`."""
    del bars
    raise ValueError("qtpylib.vwap depends on where the frame starts: use qtpylib.rolling_vwap")


def typical_price(bars: DataFrame) -> Series:
    """Return the mean of high, low and close."""
    return (bars["high"] + bars["low"] + bars["close"]) / 3.0


def mid_price(bars: DataFrame) -> Series:
    """Return the middle of high and low."""
    return (bars["high"] + bars["low"]) / 2.0


def bollinger_bands(series: Any, window: int = 20, stds: float = 2) -> DataFrame:
    """Return ``upper``, ``mid`` and ``lower``: the mean and so many sample deviations; from the second row on."""
    middle = rolling_mean(series, window, min_periods=1)
    return _bands(middle, rolling_std(series, window, min_periods=1) * stds)


def weighted_bollinger_bands(series: Any, window: int = 20, stds: float = 2) -> DataFrame:
    """Return ``upper``, ``mid`` and ``lower`` around an exponentially weighted mean."""
    return _bands(rolling_weighted_mean(series, window), rolling_std(series, window) * stds)


def keltner_channel(bars: DataFrame, window: int = 14, atrs: float = 2) -> DataFrame:
    """Return ``upper``, ``mid`` and ``lower``: the mean typical price and so many ATRs."""
    return _bands(rolling_mean(typical_price(bars), window), atr(bars, window) * atrs)


def heikinashi(bars: DataFrame) -> DataFrame:
    """Return averaged candles: open, high, low and close; the first open is the middle of its candle's body."""
    close = (bars["open"] + bars["high"] + bars["low"] + bars["close"]) / 4
    open_ = _heikinashi_opens(bars["open"].iloc[0], bars["close"].iloc[0], close.to_numpy())
    made = DataFrame({"open": open_, "high": bars["high"], "low": bars["low"], "close": close}, index=bars.index)
    made["high"] = made[["open", "high", "close"]].max(axis=1)
    made["low"] = made[["open", "low", "close"]].min(axis=1)
    return made


def awesome_oscillator(df: DataFrame, weighted: bool = False, fast: int = 5, slow: int = 34) -> Series:
    """Return the fast minus the slow mean of the middle price; weighted means of centre of mass when asked."""
    middle = mid_price(df)
    if weighted:
        return middle.ewm(fast).mean() - middle.ewm(slow).mean()
    return rolling_mean(middle, fast) - rolling_mean(middle, slow)


def true_range(bars: DataFrame) -> Series:
    """Return the range of a candle, the close before it included."""
    before = bars["close"].shift(1)
    ranges = (bars["high"] - bars["low"], (bars["high"] - before).abs(), (bars["low"] - before).abs())
    return pd.concat(ranges, axis=1).max(axis=1)


def atr(bars: DataFrame, window: int = 14, exp: bool = False) -> Series:
    """Return the mean true range, exponentially weighted when asked."""
    ranges = true_range(bars)
    return rolling_weighted_mean(ranges, window) if exp else rolling_mean(ranges, window)


def macd(series: Any, fast: int = 3, slow: int = 10, smooth: int = 16) -> DataFrame:
    """Return ``macd``, ``signal`` and ``histogram`` of exponentially weighted means."""
    line = rolling_weighted_mean(series, fast) - rolling_weighted_mean(series, slow)
    signal = rolling_weighted_mean(line, smooth)
    return DataFrame({"macd": line, "signal": signal, "histogram": line - signal})


def stoch(df: DataFrame, window: int = 14, d: int = 3, k: int = 3, fast: bool = False) -> DataFrame:
    """Return ``slow_k`` and ``slow_d``, or ``fast_k`` and ``fast_d``, 0 to 100."""
    low, high = rolling_min(df["low"], window), rolling_max(df["high"], window)
    raw = 100 * (df["close"] - low) / (high - low)
    if fast:
        return DataFrame({"fast_k": raw, "fast_d": raw.rolling(d).mean()})
    smooth = raw.rolling(k).mean()
    return DataFrame({"slow_k": smooth, "slow_d": smooth.rolling(d).mean()})


def roc(series: Series, window: int = 14) -> Series:
    """Return the change over `window` rows as a ratio."""
    return (series - series.shift(window)) / series.shift(window)


def returns(series: Series) -> Series:
    """Return the change to the row before as a ratio."""
    return series / series.shift(1) - 1


def log_returns(series: Series) -> Series:
    """Return the logarithm of the change to the row before."""
    return np.log(series / series.shift(1))


def zscore(bars: DataFrame, window: int = 20, stds: float = 1, col: str = "close") -> Series:
    """Return the distance of a column from its mean, in so many deviations."""
    return (bars[col] - rolling_mean(bars[col], window)) / (rolling_std(bars[col], window) * stds)


def ibs(bars: DataFrame) -> Series:
    """Return where the close stands between low (0) and high (1), two decimals."""
    return np.round((bars["close"] - bars["low"]) / (bars["high"] - bars["low"]), 2)


sma = rolling_mean
wma = rolling_weighted_mean


def _each_window(series: Any, window: int, function: Any, **options: Any) -> Series:
    # each window summed on its own, which differs from pandas' running sums in the last bits
    whole = pd.Series(series)
    rows = np.lib.stride_tricks.sliding_window_view(whole.to_numpy(dtype=np.float64), window)
    made = np.concatenate([np.full(window - 1, np.nan), function(rows, axis=-1, **options)])
    return pd.Series(made, index=whole.index)


def _is_plain(series: Any, window: int, min_periods: int | None) -> bool:
    return _least(window, min_periods) == window and len(series) > window


def _least(window: int, min_periods: int | None) -> int:
    return window if min_periods is None else min_periods


def _bands(middle: Series, width: Series) -> DataFrame:
    return DataFrame({"upper": middle + width, "mid": middle, "lower": middle - width})


def _heikinashi_opens(first_open: float, first_close: float, closes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    opens = np.empty(len(closes))
    opens[0] = (first_open + first_close) / 2
    for row in range(1, len(closes)):
        opens[row] = (opens[row - 1] + closes[row - 1]) / 2
    return opens
