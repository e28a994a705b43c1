"""Positions of a whole unit are those of the state machine, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.advancing import Bars, Cells, Mask
from app.domain.candles import Timeframe
from app.domain.positions import Bar, Event, EventKind, State, View, step
from app.domain.strategies import Trading
from app.runs.holding import Holdings, hold
from app.runs.shapes import REASONS, Trades
from app.runs.spans import Span
from app.runs.trading import build_curve, build_trades, steps_of_events, trade
from app.strategies.bars import Bars as StrategyBars

HOUR_MS = 3_600_000

percents = st.none() | st.sampled_from([0.5, 1.0, 3.0])
RULES = st.builds(
    Trading,
    stop_percent=percents,
    target_percent=percents,
    trailing_percent=percents,
    min_strength=st.sampled_from([0.0, 0.5]),
    adjust_percent=st.sampled_from([0.0, 0.5, 2.0]),
    fee_percent=st.sampled_from([0.0, 0.1]),
    slippage_percent=st.sampled_from([0.0, 0.05]),
)


def market(rng: np.random.Generator, count: int, states: bool) -> tuple[Bars, Cells]:
    """Make candles with gaps between them, and signals that hold on for a while."""
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, count))), 2)
    open_ = np.round(np.roll(close, 1) * rng.choice([1.0, 1.0, 0.98, 1.02], count), 2)
    high = np.maximum(open_, close) + np.round(rng.exponential(0.5, count), 2)
    low = np.minimum(open_, close) - np.round(rng.exponential(0.5, count), 2)
    action = np.repeat(rng.integers(-1, 2, count), rng.integers(1, 9, count))[:count].astype(np.int8)
    level = np.where(rng.random(count) < 0.3, np.nan, np.round(close * (1 - action * 0.02), 1))
    goal = np.where(rng.random(count) < 0.3, np.nan, np.round(close * (1 + action * 0.03), 1))
    nothing = np.full(count, np.nan)
    stop, target = (np.where(action == 0, np.nan, each) if states else nothing for each in (level, goal))
    bars = Bars(np.arange(count) * HOUR_MS, open_, high, low, close)
    return bars, Cells(np.ones(count, bool), action, rng.choice([0.25, 0.5, 1.0], count), stop, target)


def events_of_machine(bars: Bars, cells: Cells, rules: Trading) -> list[Event]:
    state, events = State(), list[Event]()
    for place in range(len(bars.open)):
        levels = (None if np.isnan(each[place]) else float(each[place]) for each in (cells.stop, cells.target))
        view = View(int(cells.action[place]), float(cells.strength[place]), *levels)
        values: Any = [float(column[place]) for column in bars[1:]]
        state, told, _ = step(state, Bar(int(bars.opened_ms[place]), *values), view, rules)
        events += told
    return events


@settings(max_examples=300, deadline=None)
@given(
    rules=RULES,
    seed=st.integers(0, 2**32),
    count=st.integers(1, 120),
    states=st.booleans(),
    together=st.sampled_from([0, 1, 3, 1000]),
)
def test_what_is_held_is_what_the_machine_holds(
    rules: Trading, seed: int, count: int, states: bool, together: int
) -> None:
    bars, cells = market(np.random.default_rng(seed), count, states)
    events = events_of_machine(bars, cells, rules)
    # followed together to the last, together while there are some, one by one from the start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.runs.exits.LEAST_TOGETHER", max(1, together))
        held = hold(bars, cells, rules)
    ended = held.end < count
    assert_same(held, events, "opened", np.ones(len(held.begin), bool), "begin quantity entry_price entry_fee")
    assert_same(held, events, "closed", ended, "end quantity exit_price exit_fee")
    closed = [event for event in events if event.kind is EventKind.CLOSED]
    assert held.profit[ended].tolist() == [event.profit for event in closed]
    assert [REASONS[code] for code in held.reason[ended]] == [event.reason for event in closed]
    assert held.side[ended].tolist() == [event.side for event in closed]
    assert np.isnan(held.exit_price[~ended]).all()


def assert_same(held: Holdings, events: list[Event], kind: str, rows: Mask, columns: str) -> None:
    place, *numbers = (getattr(held, column)[rows].tolist() for column in columns.split())
    told = [(event.opened_ms, event.quantity, event.price, event.fee) for event in events if event.kind == kind]
    assert list(zip([HOUR_MS * each for each in place], *numbers, strict=True)) == told


@settings(max_examples=100, deadline=None)
@given(rules=RULES, seed=st.integers(0, 2**32), count=st.integers(1, 120), states=st.booleans())
def test_trades_and_curve_follow_from_events_as_well(rules: Trading, seed: int, count: int, states: bool) -> None:
    bars, cells = market(np.random.default_rng(seed), count, states)
    span = Span(StrategyBars("A", Timeframe.H1, *bars, np.ones(count)), 0, 512, 0)
    made = trade(span, cells, rules)
    events = events_of_machine(bars, cells, rules)
    # an exit price went through a mean of one exit, which rounds
    expected = Trades.build(build_trades(events))
    assert [each._replace(exit_price=0.0) for each in made.trades] == [
        each._replace(exit_price=0.0) for each in expected
    ]
    curve = build_curve(bars, steps_of_events(bars, events), rules.capital, HOUR_MS)
    for column, again in zip(made.curve, curve, strict=True):
        np.testing.assert_array_equal(column, again)


def test_no_stretch_holds_more_than_one_position() -> None:
    # stopped out in the first of three candles that say the same: not entered again before something else is said
    bars, cells = market(np.random.default_rng(1), 6, states=False)
    flat = np.full(6, 100.0)
    cells = cells._replace(action=np.array([1, 1, 1, 0, 1, 1], np.int8), strength=np.ones(6))
    bars = Bars(bars.opened_ms, flat, flat, np.array([100, 90, 90, 90, 100, 100.0]), flat)
    held = hold(bars, cells, Trading(stop_percent=5.0))
    assert (held.begin.tolist(), held.end.tolist()) == ([1, 5], [1, 6])
