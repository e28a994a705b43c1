"""Metrics against numbers worked by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.candles import Timeframe
from app.runs.metrics import compute, find_deepest_fall, find_drawdowns
from tests.building import REPOSITORY
from tests.unit.runs.curves import DAY_MS, FIRST_MS, NO_TRADES, curve, trades

D1, H1 = Timeframe.D1, Timeframe.H1


def test_a_small_curve_worked_by_hand() -> None:
    # returns 0.1, -0.1, 0.1: mean 1/30, sum of squares around it 0.08/3, downside sqrt(0.01/3)
    metrics = compute(
        curve([100.0, 110.0, 99.0, 108.9], close=[50, 55, 60, 52], exposure=[0, 1, -0.5, 0]),
        trades(4.0, -1.0, -1.0, 0.0, fees=[0.5, 0.25, 0.25, 0.5]),
        D1,
    )
    year = math.sqrt(365.25)
    assert metrics.total_return_percent == pytest.approx(8.9)
    assert metrics.periods_per_year == pytest.approx(365.25)
    assert metrics.cagr_percent == pytest.approx(100 * (1.089 ** (365.25 / 3) - 1))
    assert metrics.volatility_percent == pytest.approx(100 * math.sqrt(0.04 / 3) * year)
    assert metrics.sharpe_per_candle == pytest.approx((1 / 30) / math.sqrt(0.04 / 3))
    assert metrics.sharpe == pytest.approx((1 / 30) / math.sqrt(0.04 / 3) * year)
    assert metrics.sortino == pytest.approx((1 / 30) / math.sqrt(0.01 / 3) * year)
    assert metrics.max_drawdown_percent == pytest.approx(10)
    assert metrics.max_drawdown_s == 2 * DAY_MS / 1000
    assert (metrics.trades, metrics.win_rate_percent) == (4, 25.0)
    assert metrics.profit_factor == pytest.approx(2.0)
    assert metrics.fees == pytest.approx(1.5)
    assert (metrics.exposure_percent, metrics.in_market_percent) == (37.5, 50.0)
    # four trades of 2 units from 10 to 11: 168 over a mean equity of 417.9 / 4
    assert metrics.turnover == pytest.approx(168 / (417.9 / 4))
    assert metrics.buy_and_hold_percent == pytest.approx(4.0)
    assert metrics.excess_percent == pytest.approx(4.9)
    # two values out of three: skew -1/sqrt(2), kurtosis 1.5
    assert metrics.skew == pytest.approx(-1 / math.sqrt(2))
    assert metrics.kurtosis == pytest.approx(1.5)
    assert not metrics.ruined


def test_a_fall_ends_where_its_peak_is_reached_again() -> None:
    equity = np.array([100.0, 120, 90, 110, 120, 60, 119])
    fall = find_deepest_fall(equity, find_drawdowns(equity))
    assert (fall.depth, fall.peak, fall.bottom, fall.end) == (0.5, 1, 5, 6)
    equity = np.array([100.0, 120, 60, 110, 125, 100])
    fall = find_deepest_fall(equity, find_drawdowns(equity))
    assert (fall.depth, fall.peak, fall.bottom, fall.end) == (0.5, 1, 2, 4)


def test_no_trades_and_a_flat_equity_leave_ratios_undefined() -> None:
    metrics = compute(curve([100.0] * 5), NO_TRADES, D1)
    assert (metrics.total_return_percent, metrics.volatility_percent, metrics.cagr_percent) == (0, 0, 0)
    assert (metrics.sharpe, metrics.sortino, metrics.skew, metrics.kurtosis) == (None,) * 4
    assert (metrics.trades, metrics.win_rate_percent, metrics.profit_factor, metrics.turnover) == (0, None, None, 0)
    assert (metrics.max_drawdown_percent, metrics.max_drawdown_s) == (0, 0)


def test_a_steady_gain_has_no_volatility_but_rounding() -> None:
    metrics = compute(curve([100 * 1.001**place for place in range(200)]), NO_TRADES, D1)
    assert (metrics.volatility_percent, metrics.sharpe) == (0, None)
    assert metrics.cagr_percent == pytest.approx(100 * (1.001**365.25 - 1))


def test_gains_only_have_no_sortino_and_no_profit_factor() -> None:
    metrics = compute(curve([100.0, 101, 103, 104]), trades(1.0), D1)
    assert metrics.sharpe is not None
    assert (metrics.sortino, metrics.profit_factor, metrics.win_rate_percent) == (None, None, 100)


def test_one_candle_is_no_time() -> None:
    metrics = compute(curve([100.0]), NO_TRADES, D1)
    assert (metrics.candles, metrics.elapsed_s, metrics.total_return_percent) == (1, 0, 0)
    assert (metrics.cagr_percent, metrics.volatility_percent, metrics.periods_per_year) == (None,) * 3


@pytest.mark.parametrize("end", [0.0, -5.0])
def test_ruin_is_the_end(end: float) -> None:
    metrics = compute(curve([100.0, 50.0, end, 30.0]), NO_TRADES, D1)
    assert metrics.ruined
    assert (metrics.total_return_percent, metrics.cagr_percent, metrics.max_drawdown_percent) == (-100, -100, 100)
    # the returns are -0.5 and -1, what comes after is none
    assert metrics.returns == 2
    assert metrics.sharpe_per_candle == pytest.approx(-0.75 / math.sqrt(0.125))
    assert metrics.max_drawdown_s == 3 * DAY_MS / 1000


def test_a_gain_of_minutes_is_not_compounded_into_infinity() -> None:
    assert compute(curve([1.0, 1e9], step_ms=60_000), NO_TRADES, Timeframe.M1).cagr_percent is None


def test_gaps_are_time_that_passes() -> None:
    whole = compute(curve([100.0, 101, 100, 102]), NO_TRADES, D1)
    # the same returns over twice the time: half as many candles a year
    gappy = compute(curve([100.0, 101, 100, 102], times_ms=FIRST_MS + DAY_MS * np.array([0, 1, 5, 6])), NO_TRADES, D1)
    assert gappy.periods_per_year == pytest.approx(365.25 / 2)
    assert whole.sharpe is not None
    assert gappy.sharpe == pytest.approx(whole.sharpe / math.sqrt(2))
    assert gappy.sharpe_per_candle == whole.sharpe_per_candle


def test_hours_of_trading_can_be_stated() -> None:
    equity = [100.0, 101, 100, 102]
    assert compute(curve(equity, 3_600_000), NO_TRADES, H1, 252 * 6.5).periods_per_year == pytest.approx(1638)
    assert compute(curve(equity), NO_TRADES, D1, 8766).periods_per_year == pytest.approx(365.25)
    assert compute(curve(equity, 3_600_000), NO_TRADES, H1).periods_per_year == pytest.approx(8766)


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (curve([]), "at least one candle"),
        (curve([100.0, math.nan]), "finite numbers in equity, found nan at cell 1"),
        (curve([100.0, 1.0], exposure=[0, math.inf]), "finite numbers in exposure"),
        (curve([100.0, 1.0], close=[1.0, 0.0]), "closes above 0"),
        (curve([100.0, 1.0], close=[1.0]), r"close of shape \(2,\)"),
        (curve([0.0, 1.0]), "capital above 0"),
        (curve([100.0, 1.0], times_ms=[5, 5]), "ascend"),
    ],
)
def test_what_cannot_be_measured_is_refused(made, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        compute(made, NO_TRADES, D1)


def test_hours_of_trading_are_above_zero() -> None:
    with pytest.raises(ValueError, match="hours_per_year above 0, found 0"):
        compute(curve([100.0]), NO_TRADES, D1, 0)


@settings(deadline=None)
@given(st.floats(0.01, 1e6), st.lists(st.floats(0.01, 1e6) | st.floats(-1e6, 0), max_size=60))
def test_any_equity_has_metrics_within_their_bounds(capital, later) -> None:
    metrics = compute(curve([capital, *later]), NO_TRADES, D1)  # no infinite number and no NaN: they would be refused
    assert metrics.total_return_percent >= -100
    assert 0 <= metrics.max_drawdown_percent <= 100
    assert 0 <= metrics.max_drawdown_s <= metrics.elapsed_s
    assert metrics.ruined == any(each <= 0 for each in later)
    assert (metrics.total_return_percent == -100) == metrics.ruined
    assert metrics.sharpe is None or metrics.skew is not None
    if metrics.sharpe is not None and metrics.sortino is not None:
        assert metrics.sharpe * metrics.sortino >= 0


@settings(deadline=None)
@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=60), st.floats(1e-3, 1e6))
def test_scale_of_the_capital_changes_nothing_but_fees_and_turnover(changes, capital) -> None:
    equity = np.cumprod(np.array([1.0, *(1 + each for each in changes)]))
    small, large = compute(curve(equity), NO_TRADES, D1), compute(curve(equity * capital), NO_TRADES, D1)
    assert 0 <= small.max_drawdown_percent <= 100
    assert large.max_drawdown_percent == pytest.approx(small.max_drawdown_percent, abs=1e-9)
    assert large.total_return_percent == pytest.approx(small.total_return_percent, abs=1e-9)
    assert (large.sharpe is None) == (small.sharpe is None)
    if small.sharpe is not None:
        assert large.sharpe == pytest.approx(small.sharpe, rel=1e-6, abs=1e-6)


def test_a_slot_that_computes_them_imports_no_pandas() -> None:
    code = "import sys, app.runs.metrics, app.runs.deflation; print({'pandas', 'scipy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
