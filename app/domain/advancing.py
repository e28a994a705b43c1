"""Positions over many candles at once: the same steps as candle by candle, taken only where something may happen.

Between two changes a position only waits: its levels stay, and its best close grows. Numpy looks for the next candle at
which a signal says something else or a price reaches a level, and `step` does what is done there, so that both ways
give the same answer bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.domain.positions import Bar, Event, Intent, State, Step, View, step
from app.domain.strategies import Trading

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: Candles that are looked through at once: a position seldom waits much longer, and a look costs microseconds.
SPAN = 256


class Bars(NamedTuple):
    """Candles as columns, oldest first, each (n,); prices in quote currency."""

    opened_ms: npt.NDArray[np.int64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats


class Cells(NamedTuple):
    """Signals as columns, one cell per candle, each (n,)."""

    spoke: Mask
    """Whether there was a signal; the other columns count only where there was."""
    action: npt.NDArray[np.int8]
    strength: Floats
    stop: Floats
    """NaN where none was stated."""
    target: Floats
    """NaN where none was stated."""


def advance(state: State, bars: Bars, cells: Cells, rules: Trading) -> Step:
    """Apply candles in order; the same as `step` for each of them, bit for bit.

    Args:
        state: after the candle before the first.
        bars: the candles.
        cells: what the strategy said at their closes.
        rules: of the strategy.
    """
    events: list[Event] = []
    intents: list[Intent] = []
    at, count = 0, len(bars.opened_ms)
    while at < count:
        until = min(at + SPAN, count)
        found = at if state.order is not None else at + _first(_may_change(state, bars, cells, rules, at, until))
        state = _waited(state, bars, at, found)
        if found < until:
            made = step(state, _bar(bars, found), _view(cells, found), rules)
            state = made.state
            events += made.events
            intents += made.intents
            found += 1
        at = found
    return Step(state, tuple(events), tuple(intents))


def _first(mask: Mask) -> int:
    """Return the place of the first hit, or the length when there is none."""
    place = int(mask.argmax())
    return place if mask[place] else len(mask)


def _may_change(state: State, bars: Bars, cells: Cells, rules: Trading, at: int, until: int) -> Mask:
    """Mark the candles of a span at which more may happen than waiting; a few too many do no harm."""
    part = slice(at, until)
    spoke, action = cells.spoke[part], cells.action[part]
    if not state.side:
        news: Mask = spoke & (action != state.barred)  # barred is 0 when nothing is
        return news
    says_other: Mask = spoke & (action != state.side)
    return says_other | _reaches(state, bars, rules, part) | (spoke & _moves(state, bars, cells, rules, part))


def _reaches(state: State, bars: Bars, rules: Trading, part: slice) -> Mask:
    """Mark the candles whose range reaches a level."""
    side = state.side
    worst, furthest = (bars.low, bars.high) if side > 0 else (bars.high, bars.low)
    hit = np.zeros(part.stop - part.start, bool)
    if state.stop is not None:
        hit |= side * (worst[part] - state.stop) <= 0
    if state.target is not None:
        hit |= side * (furthest[part] - state.target) >= 0
    if rules.trailing_percent is not None:
        before = _best_before(state, bars.close[part])
        hit |= side * (worst[part] - before * (1 + -side * rules.trailing_percent / 100)) <= 0
    return hit


def _best_before(state: State, closes: Floats) -> Floats:
    """Return for each candle the best of the closes before it."""
    best = np.maximum if state.side > 0 else np.minimum
    earlier = np.concatenate(([state.best], closes[:-1]))
    return np.asarray(best.accumulate(earlier), np.float64)


def _moves(state: State, bars: Bars, cells: Cells, rules: Trading, part: slice) -> Mask:
    """Mark the signals that may move a level, or reduce what is held."""
    moves = np.full(part.stop - part.start, rules.size_by_strength)
    least = bars.close[part] * rules.adjust_percent / 100
    for own, level, stated in (
        (rules.stop_percent, state.stop, cells.stop[part]),
        (rules.target_percent, state.target, cells.target[part]),
    ):
        if own is None:
            moves |= ~np.isnan(stated) if level is None else (np.abs(stated - level) >= least) & (stated != level)
    return moves


def _waited(state: State, bars: Bars, at: int, until: int) -> State:
    """Return the state after candles at which nothing happened."""
    if not state.side or until == at:
        return state
    closes = bars.close[at:until]
    best = max(state.best, float(closes.max())) if state.side > 0 else min(state.best, float(closes.min()))
    return state if best == state.best else state._replace(best=best)


def _bar(bars: Bars, at: int) -> Bar:
    return Bar(
        int(bars.opened_ms[at]),
        float(bars.open[at]),
        float(bars.high[at]),
        float(bars.low[at]),
        float(bars.close[at]),
    )


def _view(cells: Cells, at: int) -> View | None:
    if not cells.spoke[at]:
        return None
    stop, target = float(cells.stop[at]), float(cells.target[at])
    return View(
        int(cells.action[at]),
        float(cells.strength[at]),
        None if stop != stop else stop,
        None if target != target else target,
    )
