"""Positions of a whole unit, for rules that never reduce one: the same as `app.domain.positions`, many times faster.

A year of minutes holds thousands of positions, and a state of a dozen fields that is copied at every step costs more
than all indicators together. Here a position is a loop over its candles. What comes out is what `step` gives, bit for
bit: the arithmetic is the same, operation by operation, and a property test holds the two against each other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from app.domain.advancing import Bars, Cells, Floats
from app.domain.positions import Reason
from app.domain.strategies import Trading


class Held(NamedTuple):
    """One position from its entry to its end; the end is None where it is still open after the last candle."""

    begin: int
    """Place of the candle at whose open it was entered."""
    end: int | None
    """Place of the candle in which it ended."""
    side: int
    quantity: float
    entry_price: float
    entry_fee: float
    exit_price: float
    exit_fee: float
    profit: float
    """After both fees."""
    reason: Reason


class _Exit(NamedTuple):
    """Why a position does not go on."""

    place: int
    """Of the candle in which a level was hit, or at whose close the signal said something else."""
    price: float | None
    """None: at the next open."""
    reason: Reason


def hold(bars: Bars, cells: Cells, rules: Trading) -> Iterator[Held]:
    """Yield the positions of a unit, oldest first.

    Args:
        bars: its candles.
        cells: what was said at their closes; every one has spoken.
        rules: that do not size by strength.
    """
    return _Holder(bars, cells, rules).run()


class _Holder:
    """The candles of a unit as lists: a number out of an array costs three times as much as one out of a list."""

    def __init__(self, bars: Bars, cells: Cells, rules: Trading) -> None:
        self._count = len(bars.open)
        self._open, self._high, self._low = bars.open.tolist(), bars.high.tolist(), bars.low.tolist()
        self._close = bars.close.tolist()
        self._action, self._strength = cells.action.tolist(), cells.strength.tolist()
        self._stop = _stated(cells.stop) if rules.stop_percent is None else None
        self._target = _stated(cells.target) if rules.target_percent is None else None
        self._ends = [*(np.flatnonzero(np.diff(cells.action)) + 1).tolist(), self._count]
        self._rules, self._adjust_percent = rules, rules.adjust_percent

    def run(self) -> Iterator[Held]:
        """Yield the positions."""
        ordered = self._next_entry(0, 0)
        while ordered is not None and ordered + 1 < self._count:
            held = self._hold(ordered)
            yield held
            if held.end is None:
                return
            if held.reason is Reason.SIGNAL:
                # what ended it may have been an entry of the other side, filled at the same open
                ordered = held.end - 1 if self._enters(held.end - 1) else self._next_entry(held.end, 0)
            else:
                ordered = self._next_entry(held.end, held.side)

    def _enters(self, place: int) -> bool:
        return bool(self._action[place]) and bool(self._strength[place] >= self._rules.min_strength)

    def _next_entry(self, place: int, barred: int) -> int | None:
        """Return the next candle whose signal is entered on, from one on, when `barred` is not entered again."""
        while place < self._count:
            if self._action[place] in (0, barred):
                place = self._ends[bisect_right(self._ends, place)]
            elif self._strength[place] >= self._rules.min_strength:
                return place
            else:
                place += 1
            barred = 0  # something else was said
        return None

    def _hold(self, ordered: int) -> Held:
        """Return the position that a candle's signal orders."""
        rules, side, begin = self._rules, self._action[ordered], ordered + 1
        quantity = rules.capital * rules.size_percent / 100 / self._close[ordered]
        price = _moved(self._open[begin], side * rules.slippage_percent)
        fee = quantity * price * rules.fee_percent / 100
        stop, target = self._levels(ordered, side, price)
        left = self._follow(begin, side, price, stop, target)
        if left is None or (left.price is None and left.place + 1 == self._count):
            return Held(begin, None, side, quantity, price, fee, 0.0, 0.0, 0.0, Reason.SIGNAL)
        end = left.place if left.price is not None else left.place + 1
        wanted = self._open[end] if left.price is None else left.price
        exit_price = wanted if left.reason is Reason.TARGET else _moved(wanted, -side * rules.slippage_percent)
        exit_fee = quantity * exit_price * rules.fee_percent / 100
        profit = side * quantity * (exit_price - price) - fee - exit_fee
        return Held(begin, end, side, quantity, price, fee, exit_price, exit_fee, profit, left.reason)

    def _levels(self, ordered: int, side: int, price: float) -> tuple[float | None, float | None]:
        rules = self._rules
        stop = None if self._stop is None else _or_none(self._stop[ordered])
        target = None if self._target is None else _or_none(self._target[ordered])
        if rules.stop_percent is not None:
            stop = _moved(price, -side * rules.stop_percent)
        if rules.target_percent is not None:
            target = _moved(price, side * rules.target_percent)
        return stop, target

    def _follow(self, begin: int, side: int, price: float, stop: float | None, target: float | None) -> _Exit | None:
        """Return how a position ends; None when it does not."""
        is_bare = stop is None and target is None and self._stop is None and self._target is None
        if not is_bare or self._rules.trailing_percent is not None:
            return self._follow_levels(begin, side, price, stop, target)
        same = self._action[begin] == side
        place = self._ends[bisect_right(self._ends, begin)] if same else begin
        return _Exit(place, None, Reason.SIGNAL) if place < self._count else None

    def _follow_levels(
        self, begin: int, side: int, best: float, stop: float | None, target: float | None
    ) -> _Exit | None:
        # one loop on purpose: a call for each candle would cost more than what is done here
        trailing, stops, targets = self._rules.trailing_percent, self._stop, self._target
        worst, furthest = (self._low, self._high) if side > 0 else (self._high, self._low)
        for place in range(begin, self._count):
            level, reason, close = stop, Reason.STOP, self._close[place]
            if trailing is not None:
                trail = best * (1 + -side * trailing / 100)
                if stop is None or side * (stop - trail) < 0:
                    level, reason = trail, Reason.TRAILING
            if level is not None and side * (worst[place] - level) <= 0:
                opened = self._open[place]
                return _Exit(place, min(opened, level) if side > 0 else max(opened, level), reason)
            if target is not None and side * (furthest[place] - target) >= 0:
                opened = self._open[place]
                return _Exit(place, max(opened, target) if side > 0 else min(opened, target), Reason.TARGET)
            if side * (close - best) > 0:
                best = close
            if self._action[place] != side:
                return _Exit(place, None, Reason.SIGNAL)
            if stops is not None:
                stop = self._followed(stop, stops[place], close)
            if targets is not None:
                target = self._followed(target, targets[place], close)
        return None

    def _followed(self, level: float | None, wanted: float, close: float) -> float | None:
        if wanted == level or wanted != wanted:  # NaN: none is stated
            return level
        if level is not None and abs(wanted - level) < close * self._adjust_percent / 100:
            return level
        return wanted


def _moved(price: float, percent: float) -> float:
    return price * (1 + percent / 100)


def _stated(levels: Floats) -> list[float] | None:
    """Return levels as a list; None when there are none at all."""
    stated: list[float] = levels.tolist()
    return None if np.isnan(levels).all() else stated


def _or_none(level: float) -> float | None:
    return None if level != level else level
