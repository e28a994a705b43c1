"""Declared indicators: what a strategy wants computed, and the cache that computes each once per window.

TA-Lib computes; where it has no function, or answers a flat market with a number that looks like a signal, the
formula is written here and says so. Every indicator looks at its own candle and older ones only. TA-Lib's global
unstable period is never touched: it would change the numbers of everything else in the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import talib
from numpy.lib.stride_tricks import sliding_window_view

from app.domain.candles import Timeframe
from app.errors import ConfigurationError, StrategyError, TimeframeError, did_you_mean
from app.strategies.bars import Bars, FloatArray
from app.strategies.higher import Higher, build_higher

#: Share of an endless exponential average that candles older than the warm-up would carry. With one percent, an
#: average of 200 settles within 461 candles, which still fits the default window of 512. Chosen by us.
TAIL_WEIGHT = 0.01

#: Longest period an indicator may ask for, in candles; TA-Lib's own limit (ta_abstract, optInTimePeriod).
LONGEST_PERIOD = 100_000


class Indicator(NamedTuple):
    """One line of an indicator with its params: a value to declare, compare and look up.

    Build it with the classmethods. Periods are in candles (gaps in time do not count), multipliers are plain
    factors. An indicator of several lines takes `line`; its lines share one computation.

    Raises (each classmethod):
        ConfigurationError: a period or factor out of range, or a line that the indicator does not have.
    """

    name: str
    params: tuple[float, ...]
    line: str = "value"
    timeframe: str = ""
    """The higher timeframe whose candles it is computed on; empty for those of the window."""

    @property
    def settled(self) -> int:
        """Candles, of its own timeframe, after which the newest cell is valid and older ones would change it by little.

        See TAIL_WEIGHT.
        """
        return _family(self.name).settled(*self.params)

    def settled_on(self, base: Timeframe) -> int:
        """Return the candles of a window's timeframe after which the newest cell is valid.

        Raises:
            TimeframeError: candles of `base` cannot make those of the indicator's timeframe.
        """
        if not self.timeframe:
            return self.settled
        # a window may begin and end in the middle of a higher candle: what it has of those two does not count
        return (self.settled + 1) * self._count(base) - 1

    def on(self, timeframe: str) -> Indicator:
        """Return this line computed on a higher timeframe, and aligned on the candles of the window.

        A cell is the value of the newest higher candle that has closed when the cell's own candle closes. The higher
        candles are made from those of the window, see `app.strategies.higher`.

        Args:
            timeframe: such as ``4h``; the strategy works on any lower one that divides it.

        Raises:
            ConfigurationError: no such timeframe, or none is below it.
        """
        frame = str(timeframe)
        if frame not in _HIGHER:
            raise ConfigurationError(
                f"indicator {self.name}: unknown higher timeframe {frame!r}: {did_you_mean(frame, _HIGHER)}"
            )
        return self._replace(timeframe=frame)

    def _count(self, base: Timeframe) -> int:
        higher = Timeframe(self.timeframe)
        count = higher.made_of(base)
        if not count:
            fitting = ", ".join(each.value for each in Timeframe if higher.made_of(each))
            raise TimeframeError(
                f"indicator {self.name} on {higher.value}: expected candles of a lower timeframe that divides it "
                f"({fitting}), found {base.value}"
            )
        return count

    @classmethod
    def sma(cls, period: int) -> Indicator:
        """Simple moving average of the close. Source: TA-Lib SMA."""
        return cls("sma", _periods("sma", period))

    @classmethod
    def ema(cls, period: int) -> Indicator:
        """Exponential moving average of the close, alpha = 2 / (period + 1). Source: TA-Lib EMA."""
        return cls("ema", _periods("ema", period))

    @classmethod
    def wma(cls, period: int) -> Indicator:
        """Linearly weighted moving average of the close. Source: TA-Lib WMA."""
        return cls("wma", _periods("wma", period))

    @classmethod
    def stddev(cls, period: int) -> Indicator:
        """Population standard deviation of the close, quote currency. Source: TA-Lib STDDEV."""
        return cls("stddev", _periods("stddev", period, least=2))

    @classmethod
    def roc(cls, period: int) -> Indicator:
        """Change of the close over `period` candles, percent. Source: TA-Lib ROC."""
        return cls("roc", _periods("roc", period))

    @classmethod
    def cci(cls, period: int) -> Indicator:
        """Commodity channel index. Source: TA-Lib CCI (Lambert, 1980)."""
        return cls("cci", _periods("cci", period, least=2))

    @classmethod
    def rsi(cls, period: int) -> Indicator:
        """Relative strength index, 0..100; 50 when no close moved. Source: TA-Lib RSI (Wilder, 1978)."""
        return cls("rsi", _periods("rsi", period, least=2))

    @classmethod
    def atr(cls, period: int) -> Indicator:
        """Average true range, quote currency. Source: TA-Lib ATR (Wilder, 1978)."""
        return cls("atr", _periods("atr", period))

    @classmethod
    def highest(cls, period: int) -> Indicator:
        """Highest high of `period` candles, this one included. Source: TA-Lib MAX."""
        return cls("highest", _periods("highest", period, least=2))

    @classmethod
    def lowest(cls, period: int) -> Indicator:
        """Lowest low of `period` candles, this one included. Source: TA-Lib MIN."""
        return cls("lowest", _periods("lowest", period, least=2))

    @classmethod
    def macd(cls, fast: int, slow: int, signal: int, *, line: str = "macd") -> Indicator:
        """Lines macd, signal and histogram, quote currency. Source: TA-Lib MACD (Appel)."""
        periods = _periods("macd", fast, slow, least=2) + _periods("macd", signal)
        if fast >= slow:
            raise ConfigurationError(f"indicator macd: expected fast < slow, found fast {fast} and slow {slow}")
        return cls("macd", periods, _line("macd", line))

    @classmethod
    def bollinger(cls, period: int, width: float, *, line: str = "middle") -> Indicator:
        """Lines upper, middle (SMA) and lower, `width` standard deviations apart. Source: TA-Lib BBANDS."""
        params = (*_periods("bollinger", period, least=2), _factor("bollinger", width))
        return cls("bollinger", params, _line("bollinger", line))

    @classmethod
    def stochastic(cls, period: int, smooth: int, signal: int, *, line: str = "k") -> Indicator:
        """Lines k (slow) and d, 0..100; a flat range counts as 50. Source: Lane; TA-Lib STOCH with SMA smoothing."""
        periods = _periods("stochastic", period, least=2) + _periods("stochastic", smooth, signal)
        return cls("stochastic", periods, _line("stochastic", line))

    @classmethod
    def adx(cls, period: int, *, line: str = "adx") -> Indicator:
        """Lines adx, plus_di and minus_di, 0..100. Source: TA-Lib ADX, PLUS_DI, MINUS_DI (Wilder, 1978)."""
        return cls("adx", _periods("adx", period, least=2), _line("adx", line))

    @classmethod
    def donchian(cls, period: int, *, line: str = "upper") -> Indicator:
        """Lines upper and lower: extremes of the `period` candles BEFORE this one. Source: Donchian; MAX, MIN."""
        return cls("donchian", _periods("donchian", period, least=2), _line("donchian", line))

    @classmethod
    def supertrend(cls, period: int, multiplier: float, *, line: str = "level") -> Indicator:
        """Lines level (quote currency) and direction (1 up, -1 down). Source: Seban; see _supertrend."""
        params = (*_periods("supertrend", period), _factor("supertrend", multiplier))
        return cls("supertrend", params, _line("supertrend", line))

    @classmethod
    def vwap(cls, period: int) -> Indicator:
        """Volume-weighted average of the typical price over `period` candles; NaN where none of them has volume."""
        return cls("vwap", _periods("vwap", period))

    @classmethod
    def volume(cls, period: int) -> Indicator:
        """Mean volume of `period` candles, this one included, base units."""
        return cls("volume", _periods("volume", period))

    @classmethod
    def candle(cls, *, line: str = "close", ago: int = 0) -> Indicator:
        """Lines open, high, low, close and volume of the candle itself, or of that `ago` candles before it.

        Meant for a higher timeframe: ``Indicator.candle(line="high").on("1d")`` is the high of the newest closed day.
        """
        return cls("candle", _periods("candle", ago, least=0), _line("candle", line))


class IndicatorCache:
    """Computes each indicator of one window once, for all strategies that look at that window.

    Not shared between windows or threads; results are (n,) float64, NaN where too little history exists, read-only.
    """

    __slots__ = ("_higher", "_lines", "bars")

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self._lines: dict[Indicator, FloatArray] = {}
        self._higher: dict[str, Higher] = {}

    def __getitem__(self, indicator: Indicator) -> FloatArray:
        """Return one line, computing its indicator at the first request.

        Raises:
            StrategyError: TA-Lib refused the params or the window.
            TimeframeError: the window's candles cannot make those of the indicator's timeframe.
            ConfigurationError: an indicator that was not built by Indicator's classmethods and does not exist.
        """
        line = self._lines.get(indicator)
        return self._computed(indicator) if line is None else line

    def __len__(self) -> int:
        return len(self._lines)

    def select(self, declared: Mapping[str, Indicator]) -> dict[str, FloatArray]:
        """Return the lines of a strategy's declared indicators under the strategy's own names."""
        return {name: self[indicator] for name, indicator in declared.items()}

    def _computed(self, indicator: Indicator) -> FloatArray:
        family, frame = _family(indicator.name), indicator.timeframe
        _line(indicator.name, indicator.line)
        made = self._compute_higher(family, indicator) if frame else _compute(family, indicator, self.bars)
        for name, values in zip(family.lines, made, strict=True):
            values.setflags(write=False)
            # a view: who owns an array may make it writable again
            self._lines[Indicator(indicator.name, indicator.params, name, frame)] = values.view()
        return self._lines[indicator]

    def _compute_higher(self, family: _Family, indicator: Indicator) -> tuple[FloatArray, ...]:
        indicator._count(self.bars.timeframe)
        frame = indicator.timeframe
        higher = self._higher.get(frame)
        if higher is None:
            higher = self._higher[frame] = build_higher(self.bars, Timeframe(frame))
        if not len(higher.bars):
            return tuple(np.full(len(self.bars), np.nan) for _ in family.lines)
        return tuple(higher.align(line) for line in _compute(family, indicator, higher.bars))


@dataclass(frozen=True, slots=True)
class _Family:
    """How an indicator is computed, what its lines are called and how much history it needs."""

    compute: Callable[..., tuple[FloatArray, ...]]
    settled: Callable[..., int]
    lines: tuple[str, ...] = ("value",)


def _compute(family: _Family, indicator: Indicator, bars: Bars) -> tuple[FloatArray, ...]:
    try:
        return family.compute(bars, *indicator.params)
    except Exception as error:  # TA-Lib raises plain Exception
        asked = f"{indicator.name}{indicator.params}"
        raise StrategyError(
            f"indicator {asked} over {len(bars)} candles of {bars.symbol} {bars.timeframe}: "
            f"expected finite candles and params in range, TA-Lib said: {error}"
        ) from error


def _family(name: str) -> _Family:
    if name not in _FAMILIES:
        raise ConfigurationError(f"unknown indicator {name!r}: {did_you_mean(name, _FAMILIES)}")
    return _FAMILIES[name]


def _line(name: str, line: str) -> str:
    lines = _family(name).lines
    if line not in lines:
        raise ConfigurationError(f"indicator {name} has no line {line!r}: {did_you_mean(line, lines)}")
    return line


def _periods(name: str, *periods: int, least: int = 1) -> tuple[int, ...]:
    for period in periods:
        if type(period) is not int or not least <= period <= LONGEST_PERIOD:
            raise ConfigurationError(
                f"indicator {name}: expected a period of {least} to {LONGEST_PERIOD} whole candles, found {period!r}"
            )
    return periods


def _factor(name: str, factor: float) -> float:
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise ConfigurationError(f"indicator {name}: expected a finite factor above 0, found {factor!r}")
    return float(factor)


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
    values = talib.RSI(bars.close, period)
    suspects = np.flatnonzero(values == 0.0)
    if suspects.size:
        span = period + 1
        still = talib.MAX(bars.close, span)[suspects] == talib.MIN(bars.close, span)[suspects]
        values[suspects[still]] = 50.0
    return (values,)


def _stochastic(bars: Bars, period: int, smooth: int, signal: int) -> tuple[FloatArray, FloatArray]:
    """TA-Lib's STOCH out of MAX, MIN and SMA, except that a flat range is 50 and not 0: that would read as oversold."""
    low = talib.MIN(bars.low, period)
    span = talib.MAX(bars.high, period) - low
    raw = np.where(span == 0.0, 50.0, np.nan)
    np.divide((bars.close - low) * 100.0, span, out=raw, where=span > 0.0)
    k = talib.SMA(raw, smooth) if smooth > 1 else raw
    return k, talib.SMA(k, signal) if signal > 1 else k.copy()


def _adx(bars: Bars, period: int) -> tuple[FloatArray, ...]:
    prices = (bars.high, bars.low, bars.close)
    return talib.ADX(*prices, period), talib.PLUS_DI(*prices, period), talib.MINUS_DI(*prices, period)


def _donchian(bars: Bars, period: int) -> tuple[FloatArray, FloatArray]:
    return _delayed(talib.MAX(bars.high, period)), _delayed(talib.MIN(bars.low, period))


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
    reach = multiplier * talib.ATR(bars.high, bars.low, bars.close, period)
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


#: Timeframes that have a lower one.
_HIGHER = tuple(each.value for each in Timeframe if each is not Timeframe.M1)

_FAMILIES = {
    "sma": _Family(lambda bars, n: (talib.SMA(bars.close, n),) if n > 1 else (bars.close.copy(),), lambda n: n),
    "ema": _Family(lambda bars, n: (talib.EMA(bars.close, n),) if n > 1 else (bars.close.copy(),), _ema_settled),
    "wma": _Family(lambda bars, n: (talib.WMA(bars.close, n),) if n > 1 else (bars.close.copy(),), lambda n: n),
    "stddev": _Family(lambda bars, n: (talib.STDDEV(bars.close, n),), lambda n: n),
    "roc": _Family(lambda bars, n: (talib.ROC(bars.close, n),), lambda n: n + 1),
    "cci": _Family(lambda bars, n: (talib.CCI(bars.high, bars.low, bars.close, n),), lambda n: n),
    "rsi": _Family(_rsi, _wilder_settled),
    "atr": _Family(lambda bars, n: (talib.ATR(bars.high, bars.low, bars.close, n),), _wilder_settled),
    "highest": _Family(lambda bars, n: (talib.MAX(bars.high, n),), lambda n: n),
    "lowest": _Family(lambda bars, n: (talib.MIN(bars.low, n),), lambda n: n),
    "macd": _Family(
        lambda bars, fast, slow, signal: talib.MACD(bars.close, fast, slow, signal),
        _macd_settled,
        ("macd", "signal", "histogram"),
    ),
    "bollinger": _Family(
        lambda bars, n, width: talib.BBANDS(bars.close, n, width, width),
        lambda n, _width: n,
        ("upper", "middle", "lower"),
    ),
    "stochastic": _Family(_stochastic, lambda period, smooth, signal: period + smooth + signal - 2, ("k", "d")),
    "adx": _Family(_adx, lambda n: 2 * _wilder_settled(n), ("adx", "plus_di", "minus_di")),
    "donchian": _Family(_donchian, lambda n: n + 1, ("upper", "lower")),
    "supertrend": _Family(_supertrend, _supertrend_settled, ("level", "direction")),
    "vwap": _Family(_vwap, lambda n: n),
    "volume": _Family(_mean_volume, lambda n: n),
    "candle": _Family(_candle, lambda ago: ago + 1, ("open", "high", "low", "close", "volume")),
}
