"""How each indicator is computed, and how much history it needs. What a strategy declares them with: indicators.py.

TA-Lib computes; where it has no function, or answers a flat market with a number that looks like a signal, the
formula is written here and says so. Every indicator looks at its own candle and older ones only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from app.errors import StrategyError
from app.strategies.bars import Bars, FloatArray
from app.strategies.compiled import functions, talib

#: Share of an endless exponential average that candles older than the warm-up would carry. With one percent, an
#: average of 200 settles within 461 candles, which still fits the default window of 512. Chosen by us.
TAIL_WEIGHT = 0.01


@dataclass(frozen=True, slots=True)
class Family:
    """How an indicator is computed, what its lines are called and how much history it needs."""

    compute: Callable[..., tuple[FloatArray, ...]]
    settled: Callable[..., int]
    lines: tuple[str, ...] = ("value",)


def guard_talib() -> None:
    """Refuse what would change the numbers of every indicator in this process; where user code runs, once."""
    talib.set_unstable_period = _refuse("set_unstable_period")
    talib.set_compatibility = _refuse("set_compatibility")


def _refuse(name: str) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise StrategyError(f"talib.{name} would change the indicators of every strategy in this process: do without")

    return refuse


def _tail(alpha: float) -> int:
    """Candles after which (1 - alpha)^candles is at most TAIL_WEIGHT."""
    return 1 if alpha >= 1 else math.ceil(math.log(TAIL_WEIGHT) / math.log1p(-alpha))


def _ema_settled(period: int) -> int:
    return max(period, _tail(2 / (period + 1)))


def _wilder_settled(period: int) -> int:
    # One more than the smoothing itself: changes and true ranges start at the second candle.
    return max(period, _tail(1 / period)) + 1


def _macd_settled(_fast: int, slow: int, signal: int) -> int:
    return _ema_settled(slow) + _ema_settled(signal) - 1


def _supertrend_settled(period: int, multiplier: float) -> int:
    # The ratchet forgets where it started at a change of trend, for which no bound exists; trends last longer the
    # wider the band. This many were enough for 5 pairs of params in every window tried of a year of hourly BTC-USDT.
    return _wilder_settled(period) + math.ceil(10 * multiplier * math.sqrt(period))


def _rsi(bars: Bars, period: int) -> tuple[FloatArray]:
    """TA-Lib's RSI, except that a market without any movement is 50 and not 0, which would read as oversold."""
    values = functions.RSI(bars.close, period)
    suspects = np.flatnonzero(values == 0.0)
    if suspects.size:
        span = period + 1
        still = functions.MAX(bars.close, span)[suspects] == functions.MIN(bars.close, span)[suspects]
        values[suspects[still]] = 50.0
    return (values,)


def _stochastic(bars: Bars, period: int, smooth: int, signal: int) -> tuple[FloatArray, FloatArray]:
    """TA-Lib's STOCH out of MAX, MIN and SMA, except that a flat range is 50 and not 0: that would read as oversold."""
    low = functions.MIN(bars.low, period)
    span = functions.MAX(bars.high, period) - low
    raw = np.where(span == 0.0, 50.0, np.nan)
    np.divide((bars.close - low) * 100.0, span, out=raw, where=span > 0.0)
    k = functions.SMA(raw, smooth) if smooth > 1 else raw
    return k, functions.SMA(k, signal) if signal > 1 else k.copy()


def _adx(bars: Bars, period: int) -> tuple[FloatArray, ...]:
    prices = (bars.high, bars.low, bars.close)
    return functions.ADX(*prices, period), functions.PLUS_DI(*prices, period), functions.MINUS_DI(*prices, period)


def _donchian(bars: Bars, period: int) -> tuple[FloatArray, FloatArray]:
    return _delayed(functions.MAX(bars.high, period)), _delayed(functions.MIN(bars.low, period))


def _delayed(values: FloatArray, candles: int = 1) -> FloatArray:
    """Move a line some candles later, so that it speaks of the candles before."""
    later = np.full_like(values, np.nan)
    later[candles:] = values[: len(values) - candles]
    return later


def _candle(bars: Bars, ago: int) -> tuple[FloatArray, ...]:
    return tuple(_delayed(values, ago) for values in (bars.open, bars.high, bars.low, bars.close, bars.volume))


def _supertrend(bars: Bars, period: int, multiplier: float) -> tuple[FloatArray, FloatArray]:
    """Ratcheted bands of `multiplier` ATRs around the middle of the candle, and the side the close is on.

    Upper band: middle + multiplier * ATR, never raised unless the previous close was above it; lower band the
    mirror image. The trend turns up when the close passes the upper band and down when it passes the lower one; the
    level is the band on the other side of the price. It starts up when the first close is not below the middle.
    Source: Olivier Seban's definition, as in TradingView's manual of ta.supertrend (whose start is always down).
    """
    level, direction = np.full(len(bars), np.nan), np.full(len(bars), np.nan)
    middle = (bars.high + bars.low) / 2.0
    reach = multiplier * functions.ATR(bars.high, bars.low, bars.close, period)
    start = period  # TA-Lib's first ATR: `period` true ranges, the first of them on the second candle
    if start < len(bars):
        above, below, side = _ratchet(
            (middle + reach)[start:].tolist(), (middle - reach)[start:].tolist(), bars.close[start:].tolist()
        )
        direction[start:] = side
        level[start:] = np.where(direction[start:] > 0, below, above)
    return level, direction


def _ratchet(uppers: list[float], lowers: list[float], closes: list[float]) -> tuple[list[float], ...]:
    # Plain lists: each step needs the one before, and numpy scalars are five times slower here.
    upper, lower, previous = uppers[0], lowers[0], closes[0]
    side = 1.0 if previous >= (upper + lower) / 2.0 else -1.0
    above, below, sides = [], [], []
    for new_upper, new_lower, close in zip(uppers, lowers, closes, strict=True):
        upper = new_upper if new_upper < upper or previous > upper else upper
        lower = new_lower if new_lower > lower or previous < lower else lower
        side = (-1.0 if close < lower else 1.0) if side > 0 else (1.0 if close > upper else -1.0)
        above.append(upper)
        below.append(lower)
        sides.append(side)
        previous = close
    return above, below, sides


def _vwap(bars: Bars, period: int) -> tuple[FloatArray]:
    """Sum(typical * volume) / sum(volume) over `period` candles, typical = (high + low + close) / 3.

    Each window is summed afresh: a running sum keeps a remainder of earlier volume, and where the volume is zero
    that remainder would be a price.
    """
    values = np.full(len(bars), np.nan)
    if len(bars) >= period:
        typical = (bars.high + bars.low + bars.close) / 3.0
        paid = sliding_window_view(typical * bars.volume, period).sum(axis=1)
        volume = sliding_window_view(bars.volume, period).sum(axis=1)
        np.divide(paid, volume, out=values[period - 1 :], where=volume > 0.0)
    return (values,)


def _mean_volume(bars: Bars, period: int) -> tuple[FloatArray]:
    """Mean of each `period` candles, summed afresh: a running sum would keep a remainder of earlier volume."""
    values = np.full(len(bars), np.nan)
    if len(bars) >= period:
        values[period - 1 :] = sliding_window_view(bars.volume, period).mean(axis=1)
    return (values,)


#: Every indicator, by name.
FAMILIES = {
    "sma": Family(lambda bars, n: (functions.SMA(bars.close, n),) if n > 1 else (bars.close.copy(),), lambda n: n),
    "ema": Family(lambda bars, n: (functions.EMA(bars.close, n),) if n > 1 else (bars.close.copy(),), _ema_settled),
    "wma": Family(lambda bars, n: (functions.WMA(bars.close, n),) if n > 1 else (bars.close.copy(),), lambda n: n),
    "stddev": Family(lambda bars, n: (functions.STDDEV(bars.close, n),), lambda n: n),
    "roc": Family(lambda bars, n: (functions.ROC(bars.close, n),), lambda n: n + 1),
    "cci": Family(lambda bars, n: (functions.CCI(bars.high, bars.low, bars.close, n),), lambda n: n),
    "rsi": Family(_rsi, _wilder_settled),
    "atr": Family(lambda bars, n: (functions.ATR(bars.high, bars.low, bars.close, n),), _wilder_settled),
    "highest": Family(lambda bars, n: (functions.MAX(bars.high, n),), lambda n: n),
    "lowest": Family(lambda bars, n: (functions.MIN(bars.low, n),), lambda n: n),
    "macd": Family(
        lambda bars, fast, slow, signal: functions.MACD(bars.close, fast, slow, signal),
        _macd_settled,
        ("macd", "signal", "histogram"),
    ),
    "bollinger": Family(
        lambda bars, n, width: functions.BBANDS(bars.close, n, width, width),
        lambda n, _width: n,
        ("upper", "middle", "lower"),
    ),
    "stochastic": Family(_stochastic, lambda period, smooth, signal: period + smooth + signal - 2, ("k", "d")),
    "adx": Family(_adx, lambda n: 2 * _wilder_settled(n), ("adx", "plus_di", "minus_di")),
    "donchian": Family(_donchian, lambda n: n + 1, ("upper", "lower")),
    "supertrend": Family(_supertrend, _supertrend_settled, ("level", "direction")),
    "vwap": Family(_vwap, lambda n: n),
    "volume": Family(_mean_volume, lambda n: n),
    "candle": Family(_candle, lambda ago: ago + 1, ("open", "high", "low", "close", "volume")),
}
