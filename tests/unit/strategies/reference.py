"""Indicators once more, as plain loops over Python floats, written from their definitions. None: too little history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from app.strategies.bars import Bars

Series = list[float | None]


def closes(bars: Bars) -> list[float]:
    return [float(close) for close in bars.close]


def typicals(bars: Bars) -> list[float]:
    return [float(h + low + c) / 3 for h, low, c in zip(bars.high, bars.low, bars.close, strict=True)]


def rolling(values: Sequence[float], period: int, answer: Callable[[Sequence[float]], float | None]) -> Series:
    return [answer(values[i - period + 1 : i + 1]) if i >= period - 1 else None for i in range(len(values))]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def pstdev(values: Sequence[float]) -> float:
    middle = mean(values)
    return float(mean([(value - middle) ** 2 for value in values]) ** 0.5)


def sma(values: Sequence[float], period: int) -> Series:
    return rolling(values, period, mean)


def smooth(values: Sequence[float], period: int, alpha: float) -> Series:
    """Exponential average that starts as the mean of its first `period` values."""
    line: Series = [None] * min(period - 1, len(values))
    for i in range(period - 1, len(values)):
        before = line[-1] if i >= period else None
        line.append(mean(values[:period]) if before is None else before + alpha * (values[i] - before))
    return line


def ema(values: Sequence[float], period: int) -> Series:
    return smooth(values, period, 2 / (period + 1))


def wilder(values: Sequence[float], period: int) -> Series:
    return smooth(values, period, 1 / period)


def macd_histogram(values: Sequence[float], fast: int, slow: int, signal: int) -> Series:
    """The fast average starts at the same candle as the slow one, from its own last `fast` closes."""
    quick = [None] * (slow - fast) + ema(values[slow - fast :], fast)
    gaps = [q - s for q, s in zip(quick, ema(values, slow), strict=True) if q is not None and s is not None]
    line = ema(gaps, signal)
    return [None] * (slow - 1) + [None if s is None else gap - s for gap, s in zip(gaps, line, strict=True)]


def rsi(values: Sequence[float], period: int) -> Series:
    changes = [after - before for before, after in pairwise(values)]
    gains = wilder([max(change, 0.0) for change in changes], period)
    losses = wilder([max(-change, 0.0) for change in changes], period)
    return [None, *(_rsi(gain, loss) for gain, loss in zip(gains, losses, strict=True))]


def _rsi(gain: float | None, loss: float | None) -> float | None:
    if gain is None or loss is None:
        return None
    return 50.0 if gain + loss == 0 else 100 * gain / (gain + loss)


def true_ranges(bars: Bars) -> list[float]:
    """From the second candle on."""
    high, low, close = bars.high.tolist(), bars.low.tolist(), bars.close.tolist()
    return [
        max(high[i] - low[i], abs(high[i] - close[i - 1]), abs(low[i] - close[i - 1])) for i in range(1, len(close))
    ]


def atr(bars: Bars, period: int) -> Series:
    return [None, *wilder(true_ranges(bars), period)]


def stochastic(bars: Bars, period: int, smoothing: int, signal: int) -> tuple[Series, Series]:
    high, low, close = bars.high.tolist(), bars.low.tolist(), bars.close.tolist()
    raw = []
    for i in range(period - 1, len(close)):
        top, bottom = max(high[i - period + 1 : i + 1]), min(low[i - period + 1 : i + 1])
        raw.append(50.0 if top == bottom else 100 * (close[i] - bottom) / (top - bottom))
    k = [value for value in sma(raw, smoothing) if value is not None]
    d = [value for value in sma(k, signal) if value is not None]
    missing: Series = [None]
    return missing * (len(close) - len(k)) + k, missing * (len(close) - len(d)) + d


def directional(bars: Bars, period: int) -> tuple[Series, Series, Series]:
    """Wilder's ADX, +DI and -DI, with his sums (the first of them over period - 1 moves)."""
    high, low = bars.high.tolist(), bars.low.tolist()
    plus, minus = [], []
    for i in range(1, len(high)):
        up, down = high[i] - high[i - 1], low[i - 1] - low[i]
        plus.append(up if up > down and up > 0 else 0.0)
        minus.append(down if down > up and down > 0 else 0.0)
    ranges, ups, downs = (_wilder_sums(moves, period) for moves in (true_ranges(bars), plus, minus))
    plus_di = [0.0 if r == 0 else 100 * up / r for r, up in zip(ranges, ups, strict=True)]
    minus_di = [0.0 if r == 0 else 100 * down / r for r, down in zip(ranges, downs, strict=True)]
    dx = [0.0 if p + m == 0 else 100 * abs(p - m) / (p + m) for p, m in zip(plus_di, minus_di, strict=True)]
    missing: Series = [None]
    return missing * period + wilder(dx, period), missing * period + plus_di, missing * period + minus_di


def _wilder_sums(moves: list[float], period: int) -> list[float]:
    total, sums = sum(moves[: period - 1]), []
    for move in moves[period - 1 :]:
        total = total - total / period + move
        sums.append(total)
    return sums


def supertrend(bars: Bars, period: int, multiplier: float) -> tuple[Series, list[int | None]]:
    """Level and direction, told candle by candle."""
    ranges = atr(bars, period)
    level: Series = []
    direction: list[int | None] = []
    top = bottom = before = 0.0
    trend = 0
    for i, width in enumerate(ranges):
        close, middle = float(bars.close[i]), float(bars.high[i] + bars.low[i]) / 2
        if width is None:
            level.append(None)
            direction.append(None)
            continue
        new_top, new_bottom = middle + multiplier * width, middle - multiplier * width
        if trend == 0:
            top, bottom, trend, before = new_top, new_bottom, 1 if close >= middle else -1, close
        top = new_top if before > top else min(top, new_top)
        bottom = new_bottom if before < bottom else max(bottom, new_bottom)
        if trend == 1 and close < bottom:
            trend = -1
        elif trend == -1 and close > top:
            trend = 1
        level.append(bottom if trend == 1 else top)
        direction.append(trend)
        before = close
    return level, direction


def vwap(bars: Bars, period: int) -> Series:
    volumes = bars.volume.tolist()
    paid = [price * volume for price, volume in zip(typicals(bars), volumes, strict=True)]
    return [
        None if i < period - 1 or not any(volumes[i - period + 1 : i + 1])
        else sum(paid[i - period + 1 : i + 1]) / sum(volumes[i - period + 1 : i + 1])
        for i in range(len(paid))
    ]  # fmt: skip


def channel(bars: Bars, period: int) -> tuple[Series, Series]:
    """Highest high and lowest low of the candles before each candle."""
    high, low = bars.high.tolist(), bars.low.tolist()
    upper: Series = [max(high[i - period : i]) if i >= period else None for i in range(len(high))]
    lower: Series = [min(low[i - period : i]) if i >= period else None for i in range(len(low))]
    return upper, lower
