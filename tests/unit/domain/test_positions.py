"""Positions: every rule on candles worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.domain.positions import Bar, Event, EventKind, Intent, IntentKind, Reason, State, View, step, unrealised
from app.domain.strategies import Trading

#: A size of 1 unit at a price of 100, and costs that are easy to work out by hand.
PLAIN = Trading(capital=10_000, fee_percent=0, slippage_percent=0, adjust_percent=0)

LONG, SHORT, FLAT = View(1, 1.0), View(-1, 1.0), View(0, 0.0)


def bar(number: int, opened: float, high: float, low: float, close: float) -> Bar:
    return Bar(number, opened, high, low, close)


def still(number: int, price: float = 100.0) -> Bar:
    return Bar(number, price, price, price, price)


def play(
    rules: Trading, *candles: tuple[Bar, View | None], state: State | None = None
) -> tuple[State, list[Event], list[Intent]]:
    now = state or State()
    events: list[Event] = []
    intents: list[Intent] = []
    for each, view in candles:
        made = step(now, each, view, rules)
        now = made.state
        events += made.events
        intents += made.intents
    return now, events, intents


def told(events: Sequence[Event]) -> list[tuple[int, EventKind, Reason, float]]:
    return [(event.opened_ms, event.kind, event.reason, event.price) for event in events]


def test_a_signal_fills_at_the_open_of_the_next_candle() -> None:
    state, events, intents = play(PLAIN, (still(1), LONG), (bar(2, 102, 105, 101, 104), LONG))
    assert told(events) == [(2, EventKind.OPENED, Reason.SIGNAL, 102)]
    assert (state.side, state.quantity, state.entry_price, state.best) == (1, 1.0, 102, 104)
    assert intents == [Intent(1, IntentKind.OPEN, 1, 1.0, 1.0, 100, Reason.SIGNAL)]


def test_fees_and_slippage_are_against_you_on_both_ends() -> None:
    rules = Trading(capital=10_000, fee_percent=1, slippage_percent=2)
    state, events, _ = play(rules, (still(1), SHORT), (still(2, 50), SHORT), (still(3, 40), FLAT), (still(4, 25), None))
    opened, closed = events
    assert (opened.price, opened.quantity, closed.price) == (50 * 0.98, 1.0, 25 * 1.02)
    assert opened.fee == pytest.approx(0.49)
    assert closed.fee == pytest.approx(0.255)
    assert closed.profit == pytest.approx(49 - 25.5 - 0.49 - 0.255)
    assert state == State(profit=closed.profit, fees=opened.fee + closed.fee, trades=1)


def test_opposite_signal_closes_and_reverses_at_the_same_open() -> None:
    state, events, intents = play(PLAIN, (still(1), LONG), (still(2), SHORT), (still(3, 110), SHORT))
    assert told(events) == [
        (2, EventKind.OPENED, Reason.SIGNAL, 100),
        (3, EventKind.CLOSED, Reason.SIGNAL, 110),
        (3, EventKind.OPENED, Reason.SIGNAL, 110),
    ]
    assert [event.number for event in events] == [0, 0, 1]
    assert events[1].profit == 10
    assert (state.side, state.trades, state.profit) == (-1, 1, 10)
    assert [(intent.opened_ms, intent.kind, intent.side) for intent in intents] == [
        (1, IntentKind.OPEN, 1),
        (2, IntentKind.CLOSE, 1),
        (2, IntentKind.OPEN, -1),
    ]


def test_no_signal_keeps_what_is_there_and_levels_are_still_watched() -> None:
    rules = PLAIN.model_copy(update={"stop_percent": 10.0})
    state, events, _ = play(rules, (still(1), LONG), (still(2), LONG), (still(3), None))
    assert state.side == 1 and len(events) == 1
    _, events, intents = play(rules, (bar(4, 95, 96, 80, 92), None), state=state)
    assert told(events) == [(4, EventKind.CLOSED, Reason.STOP, 90)]
    assert [(intent.kind, intent.price) for intent in intents] == [(IntentKind.CLOSE, 90)]


@pytest.mark.parametrize(("action", "gap", "price"), [(1, 85.0, 85.0), (-1, 115.0, 115.0)])
def test_gap_through_the_stop_fills_at_the_open(action: int, gap: float, price: float) -> None:
    rules = PLAIN.model_copy(update={"stop_percent": 10.0})
    view = View(action, 1.0)
    _, events, _ = play(rules, (still(1), view), (still(2), view), (bar(3, gap, gap + 1, gap - 1, gap), view))
    assert told(events)[-1] == (3, EventKind.CLOSED, Reason.STOP, price)


def test_stop_comes_before_target_in_a_candle_that_reaches_both() -> None:
    rules = PLAIN.model_copy(update={"stop_percent": 5.0, "target_percent": 5.0})
    _, events, _ = play(rules, (still(1), LONG), (bar(2, 100, 110, 90, 100), LONG))
    assert told(events)[-1] == (2, EventKind.CLOSED, Reason.STOP, 95)


@pytest.mark.parametrize(("opened", "price"), [(100.0, 105.0), (107.0, 107.0)])
def test_target_has_no_slippage_and_a_gap_over_it_fills_at_the_open(opened: float, price: float) -> None:
    rules = Trading(capital=10_000, fee_percent=0, slippage_percent=1, target_percent=5.0)
    _, events, _ = play(rules, (still(1), LONG), (still(2, 100 / 1.01), LONG), (bar(3, opened, 110, 99, 108), LONG))
    assert told(events)[-1][2] is Reason.TARGET
    assert events[-1].price == pytest.approx(price)


def test_after_a_stop_the_same_side_is_entered_only_once_something_else_was_said() -> None:
    rules = PLAIN.model_copy(update={"stop_percent": 5.0})
    fallen = bar(3, 100, 100, 90, 91)
    state, events, _ = play(
        rules, (still(1), LONG), (still(2), LONG), (fallen, LONG), (still(4), LONG), (still(5), LONG)
    )
    assert (state.side, state.barred, len(events)) == (0, 1, 2)
    again, events, _ = play(rules, (still(6), FLAT), (still(7), LONG), (still(8), LONG), state=state)
    assert (again.side, told(events)[0][:2]) == (1, (8, EventKind.OPENED))
    other, events, _ = play(rules, (still(6), SHORT), (still(7), SHORT), state=state)
    assert (other.side, told(events)[0][:2]) == (-1, (7, EventKind.OPENED))


def test_trailing_stop_hangs_on_closes_before_the_candle() -> None:
    rules = PLAIN.model_copy(update={"trailing_percent": 10.0})
    # the high of 150 does not count, and the close of 140 only from the next candle on
    risen = bar(2, 100, 150, 95, 140)
    state, events, _ = play(rules, (still(1), LONG), (risen, LONG))
    assert (len(events), state.best) == (1, 140)
    _, events, _ = play(rules, (bar(3, 130, 131, 125, 126), LONG), state=state)
    assert told(events) == [(3, EventKind.CLOSED, Reason.TRAILING, 126)]


def test_the_tighter_of_stop_and_trailing_stop_is_in_force() -> None:
    rules = PLAIN.model_copy(update={"trailing_percent": 10.0, "stop_percent": 4.0})
    _, events, _ = play(rules, (still(1), SHORT), (still(2), SHORT), (bar(3, 103, 120, 103, 110), SHORT))
    assert told(events)[-1][2:] == (Reason.STOP, 104)


def test_levels_of_a_signal_are_taken_and_moved_by_the_next_one() -> None:
    first, second = View(1, 1.0, stop=90.0, target=120.0), View(1, 1.0, stop=95.0)
    state, events, intents = play(PLAIN, (still(1), first), (still(2), first), (still(3), second))
    assert (intents[0].stop, intents[0].target) == (90, 120)
    assert told(events)[1:] == [(3, EventKind.ADJUSTED, Reason.LEVELS, 100)]
    assert (state.stop, state.target) == (95, 120)
    assert (events[-1].stop, events[-1].target, events[-1].quantity, events[-1].fee) == (95, 120, 1.0, 0.0)


def test_a_level_that_moves_too_little_stays() -> None:
    rules = PLAIN.model_copy(update={"adjust_percent": 1.0})
    candles = [(still(number), View(1, 1.0, stop=stop)) for number, stop in enumerate((90.0, 90.0, 90.9, 91.0))]
    state, events, _ = play(rules, *candles)
    assert [event.stop for event in events] == [90, 91]
    assert state.stop == 91


def test_own_levels_are_not_moved_by_signals() -> None:
    rules = PLAIN.model_copy(update={"stop_percent": 10.0, "target_percent": 20.0})
    state, events, _ = play(rules, *((still(n), View(1, 1.0, stop=50.0 + n, target=150.0 + n)) for n in range(4)))
    assert (len(events), state.stop, state.target) == (1, 90, 120)


def test_weak_signal_is_not_entered_on_but_ends_the_other_side() -> None:
    rules = PLAIN.model_copy(update={"min_strength": 0.5})
    weak = View(-1, 0.4)
    state, events, _ = play(rules, (still(1), weak), (still(2), LONG), (still(3), weak), (still(4), weak))
    assert [event.kind for event in events] == [EventKind.OPENED, EventKind.CLOSED]
    assert state.side == 0


def test_size_by_strength_reduces_in_quarters_and_never_adds() -> None:
    rules = Trading(capital=10_000, fee_percent=1, slippage_percent=0, size_by_strength=True)
    strong, half, little = View(1, 0.9), View(1, 0.5), View(1, 0.45)
    candles = [strong, strong, half, little, strong, None]
    state, events, intents = play(rules, *((still(n), view) for n, view in enumerate(candles)))
    assert told(events)[1:] == [(3, EventKind.ADJUSTED, Reason.STRENGTH, 100)]
    assert (state.quantity, state.size_percent, state.entry_fee) == (0.5, 0.5, 0.5)
    assert events[1].profit == pytest.approx(-0.5 - 0.5)  # its part of both fees
    assert [(i.kind, i.size_percent, i.quantity) for i in intents[1:]] == [(IntentKind.REDUCE, 0.5, 0.5)]


def test_what_is_realised_adds_up() -> None:
    rules = Trading(capital=10_000, fee_percent=0.5, slippage_percent=0.5, size_by_strength=True)
    views = [View(1, 1.0), View(1, 0.3), View(-1, 1.0), FLAT, View(1, 1.0), None, SHORT, None]
    state, events, _ = play(rules, *((still(n, 100 + n), view) for n, view in enumerate(views)))
    assert state.fees == pytest.approx(sum(event.fee for event in events))
    assert state.profit == pytest.approx(sum(event.profit for event in events))
    open_value = unrealised(state.side, state.quantity, state.entry_price, state.entry_fee, 107.0)
    assert open_value == pytest.approx(-1 * state.quantity * (107 - 107 * 0.995) - state.entry_fee)


def test_nothing_said_and_nothing_held_is_no_change_at_all() -> None:
    state = State(profit=3.0)
    assert step(state, still(1), None, PLAIN).state is state
    assert step(state, still(1), FLAT, PLAIN) == (state, (), ())
