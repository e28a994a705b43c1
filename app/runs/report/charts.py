"""Charts as numbers: paths and ticks that the template draws. No text of a user ever comes through here. Pure.

Paths live in a square of SIZE by SIZE that the page stretches to any width; labels are HTML beside it, so that they
keep their size on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.runs.report.formats import number
from app.runs.report.sampling import SampledCurve
from app.runs.report.scales import Scale, Tick, round_scale, time_ticks

#: Side of the square that paths are drawn in.
SIZE = 1000

#: Bars of a histogram at most.
MOST_BARS = 40

#: Share of holding that must be within the scale for it to be drawn: slices of a line tell nothing.
LEAST_SEEN = 0.8

#: Times as wide as its values an axis may be so that it holds a mark beside them.
MOST_ROOM = 3.0

#: Cells of a curve drawn in a table cell.
SPARK_POINTS = 40


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Return since the start against holding, and the drawdown below it."""

    equity: str
    hold: str
    """May leave the square: the page cuts it off. Empty where little of it would be left."""
    drawdown: str
    returns: list[Tick]
    """Of the upper part, percent; shares from the bottom."""
    falls: list[Tick]
    """Of the lower part, percent; shares from the top."""
    times: list[Tick]
    zero: float
    """Where nothing is won or lost, share from the bottom of the upper part."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram."""

    x: float
    """Of SIZE, as all of them."""
    width: float
    height: float
    count: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many units have which value."""

    bars: list[Bar]
    values: list[Tick]
    counts: list[Tick]
    mark: float | None
    """Place of a value worth knowing, share from the left; None when it is not given or outside."""


def draw_curve(curve: SampledCurve) -> CurveChart:
    """Build the chart of one unit."""
    gained, held = _returns(curve.equity), _returns(curve.close)
    low, high = _seen(gained, held)
    fits = sum(low <= value <= high for value in held) >= LEAST_SEEN * len(held)
    scale, marks = round_scale(low, high) if fits else round_scale(min(*gained, 0.0), max(*gained, 0.0))
    deepest, falls = round_scale(0.0, max(*curve.drawdown_percent, 0.1), 2)
    places = _places(curve.times_ms)
    line = _path(places, [1 - deepest.share(value) for value in curve.drawdown_percent])
    return CurveChart(
        equity=_path(places, map(scale.share, gained)),
        hold=_path(places, map(scale.share, held)) if fits else "",
        drawdown=f"{line}L{SIZE} 0L0 0Z",
        returns=_ticks(scale, marks),
        falls=[Tick(deepest.share(value), number(-value, _digits(falls))) for value in falls],
        times=time_ticks(curve.times_ms[0], curve.times_ms[-1]),
        zero=scale.share(0.0),
    )


def _seen(gained: Sequence[float], held: Sequence[float]) -> tuple[float, float]:
    """Return what is seen of the returns: holding may not squeeze the unit's own line into less than a third."""
    low, high = min(*gained, 0.0), max(*gained, 0.0)
    room = high - low or math.inf
    return max(min(*held, low), low - room), min(max(*held, high), high + room)


def draw_spark(curve: SampledCurve) -> str:
    """Build the path of an equity for a table cell."""
    every = max(1, math.ceil(len(curve.equity) / SPARK_POINTS))
    cells = [*range(0, len(curve.equity) - 1, every), len(curve.equity) - 1]
    low, high = min(curve.equity), max(curve.equity)
    scale = Scale(low, high if high > low else low + 1)
    places = _places(curve.times_ms)
    return _path([places[cell] for cell in cells], [scale.share(curve.equity[cell]) for cell in cells])


def draw_histogram(values: Sequence[float], mark: float | None = None) -> Histogram:
    """Build a histogram of at least one finite value.

    Args:
        values: any order.
        mark: a value to be marked, if it is given.
    """
    low, high = min(values), max(values)
    if mark is not None and max(high, mark) - min(low, mark) <= MOST_ROOM * (high - low):
        low, high = min(low, mark), max(high, mark)
    scale, marks = round_scale(low, high, 8)
    steps = len(marks) - 1
    count = steps * max(1, MOST_BARS // steps)  # so that a bar begins at every mark
    width = (scale.high - scale.low) / count
    counts = [0] * count
    for value in values:
        counts[min(count - 1, int((value - scale.low) / width))] += 1
    heights, levels = round_scale(0, max(counts), 3)
    return Histogram(
        bars=[_bar(place, counts, heights, scale, width) for place in range(count) if counts[place]],
        values=_ticks(scale, marks),
        counts=[Tick(heights.share(level), f"{level:,.0f}") for level in levels if level == int(level)],
        mark=scale.share(mark) if mark is not None and scale.low <= mark <= scale.high else None,
    )


def _bar(place: int, counts: Sequence[int], heights: Scale, scale: Scale, width: float) -> Bar:
    size = SIZE / len(counts)
    low = scale.low + place * width
    height = round(SIZE * heights.share(counts[place]), 1)
    return Bar(round(place * size, 1), round(size, 1), height, counts[place], low, low + width)


def _ticks(scale: Scale, marks: Sequence[float]) -> list[Tick]:
    digits = _digits(marks)
    return [Tick(scale.share(mark), number(mark, digits)) for mark in marks]


def _digits(marks: Sequence[float]) -> int:
    """Return the decimals that tell the marks of an axis apart; steps are 1, 2, 2.5 or 5 times a power of ten."""
    step = abs(marks[1] - marks[0])
    power = math.floor(math.log10(step) + 1e-9)
    is_half = abs(step / 10.0**power - 2.5) < 1e-6
    return max(0, is_half - power)


def _returns(values: Sequence[float]) -> list[float]:
    return [100 * (value / values[0] - 1) for value in values]


def _places(times_ms: Sequence[int]) -> list[float]:
    span = times_ms[-1] - times_ms[0] or 1
    return [(at - times_ms[0]) / span for at in times_ms]


def _path(places: Sequence[float], shares: Iterable[float]) -> str:
    """Return an SVG path through places (shares from the left) and shares (from the bottom)."""
    points = (f"{round(SIZE * x)} {round(SIZE * (1 - y))}" for x, y in zip(places, shares, strict=True))
    return "M" + "L".join(points)
