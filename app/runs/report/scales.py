"""Axes: round numbers and round moments for people to read. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_DAY = 86_400.0
#: Steps of a time axis below a month, seconds, and how their moments are written.
_STEPS = (
    *((minutes * 60.0, "%H:%M") for minutes in (1, 5, 15, 30, 60, 180, 360, 720)),
    *((days * _DAY, "%-d %b") for days in (1, 2, 4, 7, 14)),
)
#: A range narrower than this share of its values is drawn as one value: its labels would all be the same.
_LEAST_SPAN = 1e-6
#: Percentages and ratios below this are drawn as 0.
_NOTHING = 1e-12
#: Steps of a time axis in months.
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)


class Tick(NamedTuple):
    """A place on an axis with what is written there."""

    share: float
    """From the start of the axis, 0 to 1."""
    label: str


class Scale(NamedTuple):
    """A range of values on an axis."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one."""
        return (value - self.low) / (self.high - self.low)


def round_scale(low: float, high: float, most: int = 4) -> tuple[Scale, list[float]]:
    """Return a scale that contains low and high and ends on round numbers, and these numbers.

    Args:
        low: least value, finite.
        high: greatest value, finite.
        most: about how many steps.
    """
    size, span = max(abs(low), abs(high)), high - low
    size = size if size > _NOTHING else 1.0
    step = _round_step((span if span > size * _LEAST_SPAN else size) / most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return Scale(first * step, last * step), [place * step for place in range(first, last + 1)]


def time_ticks(from_ms: int, to_ms: int, most: int = 6) -> list[Tick]:
    """Return round moments inside a range of time, at most about so many."""
    span_ms = to_ms - from_ms
    if span_ms <= 0:
        return [Tick(0.0, _write(_at(from_ms), "%-d %b %Y"))]
    moments = list(_moments(_at(from_ms), _at(to_ms), span_ms / 1000 / most))
    labels = [label for _, label in moments]
    if moments:
        labels[0] = _whole(*moments[0])
    places = [(round(at.timestamp() * 1000) - from_ms) / span_ms for at, _ in moments]
    return [Tick(place, label) for place, label in zip(places, labels, strict=True)]


def _whole(at: datetime, label: str) -> str:
    """Return the label of an axis' first moment: it says the day of an hour, the year of a day or month."""
    if label == f"{at.year}":
        return label
    return _write(at, "%-d %b %H:%M") if ":" in label else f"{label} {at.year}"


def _moments(start: datetime, end: datetime, least_step_s: float) -> Iterator[tuple[datetime, str]]:
    for step_s, form in _STEPS:
        if step_s >= least_step_s:
            return _regular(start, end, step_s, form)
    months = next((count for count in _MONTHS if count * 30.4 * _DAY >= least_step_s), _MONTHS[-1])
    return _monthly(start, end, months)


def _regular(start: datetime, end: datetime, step_s: float, form: str) -> Iterator[tuple[datetime, str]]:
    place = math.ceil(start.timestamp() / step_s)
    while (at := datetime.fromtimestamp(place * step_s, UTC)) <= end:
        is_midnight = step_s < _DAY and at.hour == at.minute == 0
        yield at, _write(at, "%-d %b" if is_midnight else form)
        place += 1


def _monthly(start: datetime, end: datetime, step: int) -> Iterator[tuple[datetime, str]]:
    place = math.ceil((start.year * 12 + start.month - 1) / step) * step
    while (at := datetime(place // 12, place % 12 + 1, 1, tzinfo=UTC)) <= end:
        if at >= start:
            yield at, _write(at, "%Y" if step >= 12 or at.month == 1 else "%b")
        place += step


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(each * power for each in (1.0, 2.0, 2.5, 5.0, 10.0) if each * power >= raw * (1 - 1e-9))


def _at(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def _write(at: datetime, form: str) -> str:
    # %-d is no part of the C standard; the day is written without its zero by hand
    return at.strftime(form.replace("%-d", str(at.day)))
