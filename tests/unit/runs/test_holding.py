"""Positions of a whole unit are those of the state machine, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.advancing import Bars, Cells
from app.domain.positions import Bar, Event, State, View, step
from app.domain.strategies import Trading
from app.runs.holding import hold
from app.runs.shapes import Trade
from app.runs.trading import build_trades

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
@given(rules=RULES, seed=st.integers(0, 2**32), count=st.integers(1, 120), states=st.booleans())
def test_what_is_held_is_what_the_machine_holds(rules: Trading, seed: int, count: int, states: bool) -> None:
    bars, cells = market(np.random.default_rng(seed), count, states)
    events = events_of_machine(bars, cells, rules)
    held = list(hold(bars, cells, rules))
    ended = [
        Trade(
            each.begin * HOUR_MS,
            each.end * HOUR_MS,
            each.side,
            each.quantity,
            each.entry_price,
            each.exit_price,
            each.entry_fee + each.exit_fee,
            each.profit,
            each.reason.value,
        )
        for each in held
        if each.end is not None
    ]
    # its exit price went through a mean of one exit, which rounds
    expected = [trade._replace(exit_price=0.0) for trade in build_trades(events)]
    assert [trade._replace(exit_price=0.0) for trade in ended] == expected
    assert [each.exit_price for each in held if each.end is not None] == [
        event.price for event in events if event.kind == "closed"
    ]
    opened = [(event.opened_ms, event.price, event.quantity, event.fee) for event in events if event.kind == "opened"]
    assert [(each.begin * HOUR_MS, each.entry_price, each.quantity, each.entry_fee) for each in held] == opened
