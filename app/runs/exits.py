"""Where positions end: at a stop, a target or a trailing stop, or when the signal says something else. Pure.

Positions of one unit do not touch each other, so many are followed at once: candle by candle since their entries, by
numpy. The few that last longest are followed one by one. Both do what `app.domain.positions` does, bit for bit, and a
property test holds them against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from app.domain.advancing import Bars, Cells, Floats
from app.domain.positions import Reason
from app.domain.strategies import Trading
from app.runs.shapes import REASONS, CodeArray, FloatArray, IntArray

SIGNAL, STOP, TARGET, TRAILING = (
    REASONS.index(each) for each in (Reason.SIGNAL, Reason.STOP, Reason.TARGET, Reason.TRAILING)
)

#: Positions that are still followed together: numpy takes as long for a step of any less as a loop does for these.
LEAST_TOGETHER = 32


class Entries(NamedTuple):
    """Positions at their entries, oldest first, each column (m,)."""

    begin: IntArray
    """Place of the candle at whose open each is entered."""
    side: FloatArray
    """-1 short, 1 long."""
    price: FloatArray
    stop: FloatArray
    """NaN: none; so is the target."""
    target: FloatArray
    until: IntArray
    """Place of the first candle, from `begin` on, at whose close the signal says something else; n when none does."""


class Exits(NamedTuple):
    """How positions end, each column (m,)."""

    place: IntArray
    """Of the candle in which a level is hit, or after whose close the position is given up; n when it stays."""
    price: FloatArray
    """What is to be had where a level is hit, before slippage; NaN where a signal ends it, at the next open."""
    reason: CodeArray
    """Places in `REASONS`."""


def find_exits(bars: Bars, cells: Cells, rules: Trading, entries: Entries) -> Exits:
    """Find how positions end.

    Args:
        bars: all candles of the unit, (n,).
        cells: what was said at their closes.
        rules: of the strategy.
        entries: of its positions.
    """
    stops = None if rules.stop_percent is not None or np.isnan(cells.stop).all() else cells.stop
    targets = None if rules.target_percent is not None or np.isnan(cells.target).all() else cells.target
    has_own = (rules.stop_percent, rules.target_percent, rules.trailing_percent) != (None, None, None)
    if not has_own and stops is None and targets is None:  # no level to follow
        count = len(entries.begin)
        return Exits(entries.until, np.full(count, np.nan), np.full(count, SIGNAL, np.int8))
    return _Following(bars, rules, entries, stops, targets).run()


class _Following:
    """Positions on their way; what is not ended by a level is ended by its signal."""

    def __init__(
        self, bars: Bars, rules: Trading, entries: Entries, stops: Floats | None, targets: Floats | None
    ) -> None:
        self._open, self._close, self._count = bars.open, bars.close, len(bars.open)
        # what a long position fears and hopes for, then the same for a short one
        self._worst, self._furthest = np.concatenate((bars.low, bars.high)), np.concatenate((bars.high, bars.low))
        self._shift = np.where(entries.side > 0, 0, self._count)
        self._begin, self._side, self._until = entries.begin, entries.side, entries.until
        self._stop, self._target, self._best = entries.stop.copy(), entries.target.copy(), entries.price.copy()
        self._stops, self._targets, self._trailing = stops, targets, rules.trailing_percent
        self._least = bars.close * rules.adjust_percent / 100
        self._place, self._level = entries.until.copy(), np.full(len(entries.begin), np.nan)
        self._reason = np.full(len(entries.begin), SIGNAL, np.int8)

    def run(self) -> Exits:
        """Follow all of them to their ends."""
        waited, alive = 0, np.arange(len(self._begin))
        while len(alive) >= LEAST_TOGETHER:
            places = self._begin[alive] + waited
            goes_on = ~self._step(alive, places) & (places < self._until[alive]) & (places + 1 < self._count)
            alive = alive[goes_on]
            waited += 1
        for each in alive.tolist():
            self._follow(each, int(self._begin[each]) + waited)
        return self._exits()

    def _exits(self) -> Exits:
        is_low = (self._side > 0) == (self._reason != TARGET)
        opened = self._open[np.minimum(self._place, self._count - 1)]
        # beyond the open there was nothing to be had: a gap through a level fills there
        price = np.where(is_low, np.minimum(opened, self._level), np.maximum(opened, self._level))
        return Exits(self._place, price, self._reason)

    def _step(self, alive: IntArray, places: IntArray) -> np.typing.NDArray[np.bool_]:
        """Look at a candle of each position; return which ones a level ends there."""
        side, stop, target, best = (each[alive] for each in (self._side, self._stop, self._target, self._best))
        level, reason = stop, np.full(len(alive), STOP, np.int8)
        if self._trailing is not None:
            trail = best * (1 + -side * self._trailing / 100)
            is_stop = side * (stop - trail) >= 0
            level, reason = np.where(is_stop, stop, trail), np.where(is_stop, STOP, TRAILING).astype(np.int8)
        turned, close = places + self._shift[alive], self._close[places]
        is_stopped = side * (self._worst[turned] - level) <= 0
        is_reached = side * (self._furthest[turned] - target) >= 0
        is_over = is_stopped | is_reached
        over = alive[is_over]
        self._place[over] = places[is_over]
        self._level[over] = np.where(is_stopped, level, target)[is_over]
        self._reason[over] = np.where(is_stopped, reason, TARGET)[is_over]
        if self._trailing is not None:
            self._best[alive] = np.where(side * (close - best) > 0, close, best)
        if self._stops is not None:
            self._stop[alive] = _followed(stop, self._stops[places], self._least[places])
        if self._targets is not None:
            self._target[alive] = _followed(target, self._targets[places], self._least[places])
        return is_over

    def _follow(self, number: int, begin: int) -> None:
        """Follow one position from a candle to its end: one loop, because a call a candle would cost more."""
        side, trailing, shift = float(self._side[number]), self._trailing, int(self._shift[number])
        stop, target, best = (float(each[number]) for each in (self._stop, self._target, self._best))
        for place, worst, furthest, close, least, wanted_stop, wanted_target in self._candles(number, begin, shift):
            level, reason = stop, STOP
            if trailing is not None:
                trail = best * (1 + -side * trailing / 100)
                if not side * (stop - trail) >= 0:
                    level, reason = trail, TRAILING
            if side * (worst - level) <= 0:
                return self._end(number, place, level, reason)
            if side * (furthest - target) >= 0:
                return self._end(number, place, target, TARGET)
            if side * (close - best) > 0:
                best = close
            if not (wanted_stop != wanted_stop or abs(wanted_stop - stop) < least):
                stop = wanted_stop
            if not (wanted_target != wanted_target or abs(wanted_target - target) < least):
                target = wanted_target
        return None

    def _candles(
        self, number: int, begin: int, shift: int
    ) -> Iterator[tuple[int, float, float, float, float, float, float]]:
        end = min(int(self._until[number]) + 1, self._count)
        part, turned, nothing = slice(begin, end), slice(begin + shift, end + shift), [np.nan] * (end - begin)
        return zip(
            range(begin, end),
            *(each[turned].tolist() for each in (self._worst, self._furthest)),
            *(each[part].tolist() for each in (self._close, self._least)),
            *(nothing if each is None else each[part].tolist() for each in (self._stops, self._targets)),
            strict=True,
        )

    def _end(self, number: int, place: int, level: float, reason: int) -> None:
        self._place[number], self._level[number], self._reason[number] = place, level, reason


def _followed(level: FloatArray, wanted: FloatArray, least: FloatArray) -> FloatArray:
    """Return the levels to be in force: moves that are too small to matter are not made."""
    return np.where(np.isnan(wanted) | (np.abs(wanted - level) < least), level, wanted)
