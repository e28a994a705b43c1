"""The deflated Sharpe ratio against the worked example of its paper, and the count of trials."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.candles import Timeframe
from app.runs.deflation import Trial, Tried, count_trials, deflate, deflated_sharpe, expected_maximum
from app.runs.metrics import compute
from tests.unit.runs.curves import NO_TRADES, curve

H1 = Timeframe.H1

#: Bailey and Lopez de Prado 2014, "A numerical example": 2.5 a year out of 1250 daily returns of 250 a year.
DAILY = 2.5 / math.sqrt(250)
VARIANCE = 0.5 / 250


def trial(identity: str = "a", sharpe: float | None = 0.1, **changes) -> Trial:
    return Trial("BTC-USD", H1, 0, 100, identity, sharpe)._replace(**changes)


def test_the_worked_example_of_the_paper() -> None:
    assert expected_maximum(100, VARIANCE) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(DAILY, 1250, -3, 10, 100, VARIANCE) == pytest.approx(0.9004, abs=5e-5)
    # the paper: after 46 trials only it would have been significant, and with normal returns after 88
    assert deflated_sharpe(DAILY, 1250, -3, 10, 46, VARIANCE) == pytest.approx(0.9505, abs=5e-5)
    assert deflated_sharpe(DAILY, 1250, 0, 3, 88, VARIANCE) == pytest.approx(0.9505, abs=5e-5)


def test_of_a_single_trial_nothing_was_chosen() -> None:
    assert expected_maximum(1, 5.0) == 0
    assert deflated_sharpe(0.0, 100, 0, 3, 1, 0.0) == pytest.approx(0.5)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 10_000), st.floats(0, 1))
def test_more_trials_never_make_it_better(few, more, variance) -> None:
    first, second = sorted((few, more))
    assert expected_maximum(first, variance) <= expected_maximum(second, variance)


@pytest.mark.parametrize(("trials", "variance"), [(0, 0.1), (5, -0.1), (5, math.nan)])
def test_nonsense_is_refused(trials, variance) -> None:
    with pytest.raises(ValueError, match="at least 1 trial"):
        expected_maximum(trials, variance)


def test_too_little_to_judge() -> None:
    assert deflated_sharpe(0.1, 1, 0, 3, 5, 0.1) is None
    assert deflated_sharpe(1.0, 100, 2.0, 1.0, 5, 0.1) is None  # no uncertainty left


def test_every_unit_of_the_run_is_a_trial() -> None:
    run = [trial("a", 0.1), trial("b", 0.3), trial("failed", None), trial("a", 0.2, symbol="ETH-USD")]
    found = count_trials(run)
    assert (found.trials, round(found.variance, 12)) == (4, 0.01)
    assert count_trials([trial("only")]) == (1, 0.0)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"from_ms": -50, "to_ms": 1}, True),
        ({"from_ms": 99, "to_ms": 200}, True),
        ({"from_ms": 100, "to_ms": 200}, False),
        ({"to_ms": 0, "from_ms": -9}, False),
        ({"symbol": "ETH-USD"}, False),
        ({"timeframe": Timeframe.D1}, False),
    ],
)
def test_earlier_trials_count_when_they_saw_the_same_data(changes, counts) -> None:
    earlier = [trial("earlier", 0.2, **changes)]
    assert count_trials([trial("a")], earlier).trials == 1 + counts


def test_the_same_thing_again_is_no_other_trial() -> None:
    assert count_trials([trial("a")], [trial("a"), trial("a", 0.1 + 1e-17)]) == (1, 0.0)
    assert count_trials([trial("a")], [trial("a", to_ms=90)]).trials == 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(-1, 1) | st.none()), max_size=20), st.randoms())
def test_the_order_of_trials_does_not_matter(made, random) -> None:
    earlier = [trial(identity, sharpe) for identity, sharpe in made]
    shuffled = random.sample(earlier, len(earlier))
    assert count_trials([trial("run")], earlier) == count_trials([trial("run")], shuffled)


def test_a_unit_is_deflated_by_what_was_tried() -> None:
    metrics = compute(curve([100.0, 101, 100.5, 102, 101.8, 103, 104, 103.5]), NO_TRADES, Timeframe.D1)
    alone, chosen = deflate(metrics, Tried(1, 0.0)), deflate(metrics, Tried(50, 0.04))
    assert alone is not None
    assert chosen is not None
    assert (alone.benchmark, alone.trials, chosen.trials) == (0, 1, 50)
    assert chosen.probability < alone.probability
    assert chosen.benchmark == pytest.approx(chosen.benchmark_per_candle * math.sqrt(365.25))
    assert metrics.sharpe_per_candle is not None
    assert metrics.skew is not None
    assert metrics.kurtosis is not None
    by_hand = deflated_sharpe(metrics.sharpe_per_candle, 7, metrics.skew, metrics.kurtosis, 50, 0.04)
    assert chosen.probability == by_hand
    assert deflate(compute(curve([100.0] * 5), NO_TRADES, Timeframe.D1), Tried(1, 0.0)) is None
