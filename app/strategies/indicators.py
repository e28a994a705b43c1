"""Declared indicators: what a strategy wants computed, and the cache that computes each once per window.

How they are computed: formulas.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from app.domain.candles import Timeframe
from app.errors import ConfigurationError, StrategyError, TimeframeError, did_you_mean
from app.strategies.bars import Bars, FloatArray
from app.strategies.formulas import FAMILIES, Family
from app.strategies.higher import Higher, build_higher

#: Longest period an indicator may ask for, in candles; TA-Lib's own limit (ta_abstract, optInTimePeriod).
LONGEST_PERIOD = 100_000

#: Timeframes that have a lower one.
_HIGHER = tuple(each.value for each in Timeframe if each is not Timeframe.M1)


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

        See TAIL_WEIGHT of formulas.py.
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

    def _compute_higher(self, family: Family, indicator: Indicator) -> tuple[FloatArray, ...]:
        indicator._count(self.bars.timeframe)
        frame = indicator.timeframe
        higher = self._higher.get(frame)
        if higher is None:
            higher = self._higher[frame] = build_higher(self.bars, Timeframe(frame))
        if not len(higher.bars):
            return tuple(np.full(len(self.bars), np.nan) for _ in family.lines)
        return tuple(higher.align(line) for line in _compute(family, indicator, higher.bars))


def _compute(family: Family, indicator: Indicator, bars: Bars) -> tuple[FloatArray, ...]:
    try:
        return family.compute(bars, *indicator.params)
    except Exception as error:  # TA-Lib raises plain Exception
        asked = f"{indicator.name}{indicator.params}"
        raise StrategyError(
            f"indicator {asked} over {len(bars)} candles of {bars.symbol} {bars.timeframe}: "
            f"expected finite candles and params in range, TA-Lib said: {error}"
        ) from error


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise ConfigurationError(f"unknown indicator {name!r}: {did_you_mean(name, FAMILIES)}")
    return FAMILIES[name]


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
