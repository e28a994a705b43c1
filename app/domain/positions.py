"""Positions: what a strategy holds in one series, candle by candle. A pure state machine.

A signal belongs to a closed candle, so what it orders is filled at the open of the next one, with slippage against it.
Inside a candle the stop is looked at before the target, because a bar does not tell which came first. Nothing looks
ahead: the trailing stop of a candle comes from closes before it.

flat --order fills--> open --opposite or flat signal, stop, target, trailing--> flat (or at once the other side)
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

from app.domain.jobs import Signal
from app.domain.strategies import Trading

#: Parts of a full size when strengths decide how much is held: finer ones would trade on every wobble.
STRENGTH_PARTS = 4


class EventKind(StrEnum):
    """What happened to a position."""

    OPENED = "opened"
    ADJUSTED = "adjusted"
    CLOSED = "closed"


class Reason(StrEnum):
    """Why it happened."""

    SIGNAL = "signal"
    STRENGTH = "strength"
    LEVELS = "levels"
    STOP = "stop"
    TARGET = "target"
    TRAILING = "trailing"


class IntentKind(StrEnum):
    """What an executor is asked to do."""

    OPEN = "open"
    CLOSE = "close"
    REDUCE = "reduce"


class Bar(NamedTuple):
    """What a position needs of a closed candle; prices in quote currency."""

    opened_ms: int
    open: float
    high: float
    low: float
    close: float


class View(NamedTuple):
    """What a position needs of a signal."""

    action: int
    """-1 short, 0 flat, 1 long."""
    strength: float
    stop: float | None = None
    target: float | None = None

    @classmethod
    def of(cls, signal: Signal) -> View:
        """Take it from a signal."""
        return cls(signal.action, signal.strength, signal.stop, signal.target)


class Order(NamedTuple):
    """What is done at the open of the next candle: be on this side, with this much."""

    side: int
    quantity: float = 0.0
    size_percent: float = 0.0
    stop: float | None = None
    target: float | None = None


class State(NamedTuple):
    """A strategy's position in one series, after the candles that were applied."""

    side: int = 0
    """-1 short, 0 none, 1 long."""
    quantity: float = 0.0
    """Base units, at least 0."""
    size_percent: float = 0.0
    """Share of the portfolio that it was opened with, less what was given up since."""
    entry_price: float = 0.0
    entry_fee: float = 0.0
    """Of what is still held, quote currency."""
    stop: float | None = None
    target: float | None = None
    best: float = 0.0
    """Best of the entry price and the closes since: what a trailing stop hangs on."""
    opened_ms: int = 0
    """Open time of the candle at whose open it was entered, epoch ms."""
    barred: int = 0
    """The side that is not entered again before the strategy has said something else: a stop, target or trailing stop
    ended the last one."""
    order: Order | None = None
    profit: float = 0.0
    """Realised so far, after fees, quote currency."""
    fees: float = 0.0
    """Paid so far, quote currency."""
    trades: int = 0
    """Positions that were closed."""


class Event(NamedTuple):
    """One change of a position, at a candle."""

    opened_ms: int
    number: int
    """Of the events of its candle, from 0."""
    kind: EventKind
    reason: Reason
    side: int
    price: float
    quantity: float
    """That was opened, closed or given up; of an adjustment of levels, what is held."""
    fee: float
    profit: float
    """Realised by it, after the fees of both its ends; 0 unless something was closed or given up."""
    stop: float | None
    target: float | None


class Intent(NamedTuple):
    """An order for somebody else to place, told as soon as its candle is closed."""

    opened_ms: int
    kind: IntentKind
    side: int
    """Of the position that is opened, closed or reduced."""
    size_percent: float
    """Share of the portfolio that is opened, closed or given up."""
    quantity: float
    price: float
    """Reference: the close of the candle, or the level that was hit inside it."""
    reason: Reason
    stop: float | None = None
    target: float | None = None


class Step(NamedTuple):
    """What some candles made of a position."""

    state: State
    events: tuple[Event, ...] = ()
    intents: tuple[Intent, ...] = ()


def step(state: State, bar: Bar, view: View | None, rules: Trading) -> Step:
    """Apply one closed candle. The same arguments give the same answer, bit for bit.

    Args:
        state: after the candle before it.
        bar: the candle.
        view: what the strategy says at its close; None when it said nothing, which changes nothing.
        rules: of the strategy.
    """
    if state.order is None and not state.side and not state.barred and not _enters(view, rules):
        return Step(state)
    change = _Change(state, bar, rules)
    if state.order is not None:
        change.fill(state.order)
    if change.state.side:
        change.watch()
    if view is not None:
        change.hear(view)
    return Step(change.state, tuple(change.events), tuple(change.intents))


def _enters(view: View | None, rules: Trading) -> bool:
    return view is not None and view.action != 0 and view.strength >= rules.min_strength


def unrealised(side: int, quantity: float, entry_price: float, entry_fee: float, price: float) -> float:
    """Return what an open position would realise at a price, without the fee of closing it; quote currency."""
    return side * quantity * (price - entry_price) - entry_fee


class _Change:
    """One candle being applied to a state."""

    def __init__(self, state: State, bar: Bar, rules: Trading) -> None:
        self.state = state
        self.events: list[Event] = []
        self.intents: list[Intent] = []
        self._bar = bar
        self._rules = rules

    def fill(self, order: Order) -> None:
        """Do at the open what the candle before it ordered."""
        self.state = self.state._replace(order=None)
        if self.state.side == order.side:
            self._give_up(order)
            return
        if self.state.side:
            self._close(self._slipped(self._bar.open, -self.state.side), Reason.SIGNAL)
        if order.side:
            self._open(order)

    def watch(self) -> None:
        """Look at stop, trailing stop and target inside the candle, in this order; then note its close."""
        state, bar, side = self.state, self._bar, self.state.side
        level, reason = self._protection()
        worst, furthest = (bar.low, bar.high) if side > 0 else (bar.high, bar.low)
        if level is not None and side * (worst - level) <= 0:
            # beyond the open there was nothing to be had: a gap through the stop fills there
            price = min(bar.open, level) if side > 0 else max(bar.open, level)
            self._end(self._slipped(price, -side), level, reason)
        elif state.target is not None and side * (furthest - state.target) >= 0:
            price = max(bar.open, state.target) if side > 0 else min(bar.open, state.target)
            self._end(price, state.target, Reason.TARGET)
        elif side * (bar.close - state.best) > 0:
            self.state = state._replace(best=bar.close)

    def hear(self, view: View) -> None:
        """Order for the next open what the signal says."""
        if self.state.barred and view.action != self.state.barred:
            self.state = self.state._replace(barred=0)
        enters = _enters(view, self._rules) and view.action != self.state.barred
        if not self.state.side:
            if enters:
                self._order_entry(view)
        elif view.action == self.state.side:
            self._adjust(view)
        else:
            self._order_exit()
            if enters:
                self._order_entry(view)

    def _protection(self) -> tuple[float | None, Reason]:
        """Return the tighter of stop and trailing stop."""
        state, trailing = self.state, self._rules.trailing_percent
        if trailing is None:
            return state.stop, Reason.STOP
        trail = _moved(state.best, -state.side * trailing)
        if state.stop is not None and state.side * (state.stop - trail) >= 0:
            return state.stop, Reason.STOP
        return trail, Reason.TRAILING

    def _open(self, order: Order) -> None:
        price = self._slipped(self._bar.open, order.side)
        fee, stop_percent, target_percent = self._fee(order.quantity, price), *self._own_levels()
        self.state = self.state._replace(
            side=order.side,
            quantity=order.quantity,
            size_percent=order.size_percent,
            entry_price=price,
            entry_fee=fee,
            stop=order.stop if stop_percent is None else _moved(price, -order.side * stop_percent),
            target=order.target if target_percent is None else _moved(price, order.side * target_percent),
            best=price,
            opened_ms=self._bar.opened_ms,
            fees=self.state.fees + fee,
        )
        self._tell(EventKind.OPENED, Reason.SIGNAL, price, order.quantity, fee, 0.0)

    def _close(self, price: float, reason: Reason) -> None:
        state = self.state
        fee = self._fee(state.quantity, price)
        profit = state.side * state.quantity * (price - state.entry_price) - state.entry_fee - fee
        self._tell(EventKind.CLOSED, reason, price, state.quantity, fee, profit)
        self.state = State(
            barred=state.barred,
            profit=state.profit + profit,
            fees=state.fees + fee,
            trades=state.trades + 1,
        )

    def _end(self, price: float, level: float, reason: Reason) -> None:
        state = self.state
        self._intend(IntentKind.CLOSE, state.side, state.size_percent, state.quantity, level, reason)
        self._close(price, reason)
        self.state = self.state._replace(barred=state.side)

    def _give_up(self, order: Order) -> None:
        """Reduce the position to what the order says."""
        state = self.state
        price, gone = self._slipped(self._bar.open, -state.side), state.quantity - order.quantity
        fee, entry_fee = self._fee(gone, price), state.entry_fee * (gone / state.quantity)
        profit = state.side * gone * (price - state.entry_price) - entry_fee - fee
        self.state = state._replace(
            quantity=order.quantity,
            size_percent=order.size_percent,
            entry_fee=state.entry_fee - entry_fee,
            profit=state.profit + profit,
            fees=state.fees + fee,
        )
        self._tell(EventKind.ADJUSTED, Reason.STRENGTH, price, gone, fee, profit)

    def _order_entry(self, view: View) -> None:
        size_percent = self._rules.size_percent * self._share(view.strength)
        quantity = self._rules.capital * size_percent / 100 / self._bar.close
        stop_percent, target_percent = self._own_levels()
        order = Order(
            view.action,
            quantity,
            size_percent,
            view.stop if stop_percent is None else None,
            view.target if target_percent is None else None,
        )
        self.state = self.state._replace(order=order)
        close = self._bar.close
        stop = order.stop if stop_percent is None else _moved(close, -view.action * stop_percent)
        target = order.target if target_percent is None else _moved(close, view.action * target_percent)
        self._intend(IntentKind.OPEN, view.action, size_percent, quantity, close, Reason.SIGNAL, stop, target)

    def _order_exit(self) -> None:
        state = self.state
        self.state = state._replace(order=Order(0))
        close = self._bar.close
        self._intend(IntentKind.CLOSE, state.side, state.size_percent, state.quantity, close, Reason.SIGNAL)

    def _adjust(self, view: View) -> None:
        """Follow a signal of the same side: its levels at once, its strength at the next open."""
        stop_percent, target_percent = self._own_levels()
        stop = self._followed(self.state.stop, None if stop_percent is not None else view.stop)
        target = self._followed(self.state.target, None if target_percent is not None else view.target)
        if (stop, target) != (self.state.stop, self.state.target):
            self.state = self.state._replace(stop=stop, target=target)
            self._tell(EventKind.ADJUSTED, Reason.LEVELS, self._bar.close, self.state.quantity, 0.0, 0.0)
        size_percent = self._rules.size_percent * self._share(view.strength)
        if self._rules.size_by_strength and size_percent < self.state.size_percent:
            self._order_less(size_percent)

    def _order_less(self, size_percent: float) -> None:
        state = self.state
        left = state.quantity * (size_percent / state.size_percent)
        self.state = state._replace(order=Order(state.side, left, size_percent))
        self._intend(
            IntentKind.REDUCE,
            state.side,
            state.size_percent - size_percent,
            state.quantity - left,
            self._bar.close,
            Reason.STRENGTH,
        )

    def _followed(self, level: float | None, wanted: float | None) -> float | None:
        """Return the level to be in force: moves that are too small to matter are not made."""
        if wanted is None:
            return level
        least = self._bar.close * self._rules.adjust_percent / 100
        is_kept = level is not None and (wanted == level or abs(wanted - level) < least)
        return level if is_kept else wanted

    def _own_levels(self) -> tuple[float | None, float | None]:
        return self._rules.stop_percent, self._rules.target_percent

    def _share(self, strength: float) -> float:
        if not self._rules.size_by_strength:
            return 1.0
        return max(1, math.ceil(strength * STRENGTH_PARTS)) / STRENGTH_PARTS

    def _slipped(self, price: float, direction: int) -> float:
        return _moved(price, direction * self._rules.slippage_percent)

    def _fee(self, quantity: float, price: float) -> float:
        return quantity * price * self._rules.fee_percent / 100

    def _tell(self, kind: EventKind, reason: Reason, price: float, quantity: float, fee: float, profit: float) -> None:
        state = self.state
        place = (self._bar.opened_ms, len(self.events))
        levels = (state.stop, state.target)
        self.events.append(Event(*place, kind, reason, state.side, price, quantity, fee, profit, *levels))

    def _intend(
        self,
        kind: IntentKind,
        side: int,
        size_percent: float,
        quantity: float,
        price: float,
        reason: Reason,
        stop: float | None = None,
        target: float | None = None,
    ) -> None:
        opened_ms = self._bar.opened_ms
        self.intents.append(Intent(opened_ms, kind, side, size_percent, quantity, price, reason, stop, target))


def _moved(price: float, percent: float) -> float:
    return price * (1 + percent / 100)
