"""Many candles at once give bit for bit what candle by candle gives."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from app.domain.advancing import Bars, Cells, advance
from app.domain.positions import Bar, Event, Intent, Reason, State, Step, View, step
from app.domain.strategies import Trading

percents = some.none() | some.floats(0.1, 8.0)
rules_of_all_kinds = some.builds(
    Trading,
    size_by_strength=some.booleans(),
    min_strength=some.sampled_from([0.0, 0.4]),
    stop_percent=percents,
    target_percent=percents,
    trailing_percent=percents,
    adjust_percent=some.sampled_from([0.0, 0.5, 3.0]),
)


def market(seed: int, count: int) -> Bars:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, count)))
    opened = np.concatenate(([100.0], close[:-1])) * np.exp(random.normal(0, 0.004, count))
    high = np.maximum(opened, close) * np.exp(np.abs(random.normal(0, 0.005, count)))
    low = np.minimum(opened, close) * np.exp(-np.abs(random.normal(0, 0.005, count)))
    return Bars(np.arange(count, dtype=np.int64) * 60_000, opened, high, low, close)


def speech(seed: int, bars: Bars, change: float, silence: float) -> Cells:
    """Signals that hold for a while: of a candle in `change` another one begins, `silence` of them are missing."""
    random = np.random.default_rng(seed)
    count = len(bars.close)
    held = np.maximum.accumulate(np.where(random.random(count) < change, np.arange(count), 0))
    action = random.integers(-1, 2, count).astype(np.int8)[held]
    away = random.uniform(0.01, 0.1, count) * action
    stop = np.where(random.random(count) < 0.3, np.nan, bars.close * (1 - away))
    target = np.where(random.random(count) < 0.3, np.nan, bars.close * (1 + away))
    strength = np.round(random.random(count), 2)
    return Cells(random.random(count) >= silence, action, strength, stop, target)


def split(bars: Bars, cells: Cells, at: int) -> tuple[tuple[Bars, Cells], tuple[Bars, Cells]]:
    parts = slice(at), slice(at, None)
    first, second = ((Bars(*(c[part] for c in bars)), Cells(*(c[part] for c in cells))) for part in parts)  # type: ignore[arg-type]  # columns of several dtypes
    return first, second


def one_by_one(state: State, bars: Bars, cells: Cells, rules: Trading) -> Step:
    events: list[Event] = []
    intents: list[Intent] = []
    for at in range(len(bars.close)):
        values = [None if np.isnan(x) else float(x) for x in (cells.stop[at], cells.target[at])]
        view = View(int(cells.action[at]), float(cells.strength[at]), *values) if cells.spoke[at] else None
        bar = Bar(int(bars.opened_ms[at]), *(float(column[at]) for column in bars[1:]))
        made = step(state, bar, view, rules)
        state = made.state
        events += made.events
        intents += made.intents
    return Step(state, tuple(events), tuple(intents))


@settings(max_examples=150, deadline=None)
@given(
    seed=some.integers(0, 2**32 - 1),
    count=some.integers(0, 700),
    change=some.sampled_from([0.005, 0.1, 1.0]),
    silence=some.sampled_from([0.0, 0.2, 0.99]),
    cut=some.floats(0, 1),
    rules=rules_of_all_kinds,
)
def test_at_once_is_one_by_one_wherever_it_is_cut(
    seed: int, count: int, change: float, silence: float, cut: float, rules: Trading
) -> None:
    bars = market(seed, count)
    cells = speech(seed, bars, change, silence)
    expected = one_by_one(State(), bars, cells, rules)
    assert advance(State(), bars, cells, rules) == expected
    at = int(cut * count)
    head, tail = split(bars, cells, at)
    first = advance(State(), *head, rules)
    second = advance(first.state, *tail, rules)
    assert (second.state, first.events + second.events) == (expected.state, expected.events)


def test_the_examples_trade() -> None:
    # a property about nothing would hold as well
    bars = market(1, 700)
    cells = speech(1, bars, 0.1, 0.2)
    kinds = (Trading(stop_percent=1.0, trailing_percent=1.5), Trading(size_by_strength=True))
    made = [advance(State(), bars, cells, rules) for rules in kinds]
    assert {event.reason for each in made for event in each.events} == set(Reason)
    assert min(each.state.trades for each in made) > 20
