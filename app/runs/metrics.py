"""Metrics of one unit, from its curve and its trades. Pure numpy: a slot that computes them imports no pandas.

Every formula, its unit and its source stand in docs/metrics.md; the tests hold them against empyrical.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import NamedTuple

import numpy as np

from app.domain.base import Value
from app.domain.candles import Timeframe
from app.runs.shapes import Curve, FloatArray, Trades

#: A year, ms: the mean one of the Gregorian calendar to four digits, leap years included.
YEAR_MS = 365.25 * 86_400_000

#: Returns that vary by less than this are rounding and not volatility: float64 leaves 1e-16 of a ratio behind.
LEAST_DEVIATION = 1e-12


class Metrics(Value):
    """What a unit did. None: not defined for this unit, and docs/metrics.md says when that is."""

    candles: int
    """Cells of the curve."""
    elapsed_s: float
    """From the first close to the last, seconds."""
    periods_per_year: float | None
    """Candles a year that volatility, Sharpe and Sortino are annualised with."""
    total_return_percent: float
    cagr_percent: float | None
    volatility_percent: float | None
    """A year."""
    sharpe: float | None
    """A year, against a riskless rate of 0."""
    sortino: float | None
    """The same."""
    max_drawdown_percent: float
    """Deepest fall from a peak, percent of the peak, 0 to 100."""
    max_drawdown_s: float
    """From the peak before the deepest fall until it was reached again, or until the end; seconds."""
    win_rate_percent: float | None
    profit_factor: float | None
    exposure_percent: float
    """Mean share of the equity in the market, either side."""
    in_market_percent: float
    """Share of the candles that closed with a position."""
    trades: int
    fees: float
    """Of the closed trades, quote currency."""
    turnover: float
    """Value bought and sold by the closed trades, in multiples of the mean equity."""
    buy_and_hold_percent: float
    """Return of the market itself, no fees."""
    excess_percent: float
    """Total return less buy-and-hold, percentage points."""
    ruined: bool
    """Whether the equity was used up; it counts as 0 from then on."""
    returns: int
    """Candles that have a return: all but the first, up to ruin."""
    sharpe_per_candle: float | None
    """Not annualised: what is deflated."""
    skew: float | None
    """Of the returns per candle; 0 for normal ones."""
    kurtosis: float | None
    """Of the returns per candle; 3 for normal ones."""


def compute(curve: Curve, trades: Trades, timeframe: Timeframe, hours_per_year: float | None = None) -> Metrics:
    """Compute the metrics of one unit.

    Args:
        curve: at least one candle; the first cell of its equity is the capital it began with.
        trades: the closed ones.
        timeframe: of the candles.
        hours_per_year: hours a year in which the market trades, such as 8766 for one that never closes or 1638 for
            252 sessions of 6.5 hours. None takes the candles per year that the curve itself has, gaps included.

    Raises:
        ValueError: no candle, columns of different length, a value that is not finite, a close, a capital or hours
            that are not above 0, or times that do not ascend.
    """
    _check(curve)
    equity, ruined = _until_ruin(curve.equity)
    elapsed_ms = float(curve.times_ms[-1] - curve.times_ms[0])
    per_year = _periods_per_year(len(curve.close), elapsed_ms, timeframe, hours_per_year)
    fall = find_deepest_fall(equity, find_drawdowns(equity))
    total, market = float(equity[-1] / equity[0] - 1), float(curve.close[-1] / curve.close[0] - 1)
    traded = math.fsum((trades.quantity * (trades.entry_price + trades.exit_price)).tolist())
    returns = _returns(equity)
    moments = _moments(returns)
    return Metrics(
        candles=len(equity),
        elapsed_s=elapsed_ms / 1000,
        periods_per_year=per_year,
        total_return_percent=100 * total,
        cagr_percent=_cagr_percent(total, elapsed_ms),
        volatility_percent=_annual(moments.deviation, per_year, 100.0),
        sharpe=_annual(moments.sharpe, per_year),
        sortino=_annual(moments.sortino, per_year),
        max_drawdown_percent=100 * fall.depth,
        max_drawdown_s=float(curve.times_ms[fall.end] - curve.times_ms[fall.peak]) / 1000,
        win_rate_percent=100 * int(np.count_nonzero(trades.profit > 0)) / len(trades) if len(trades) else None,
        profit_factor=_profit_factor(trades.profit),
        exposure_percent=100 * float(np.mean(np.abs(curve.exposure))),
        in_market_percent=100 * float(np.mean(curve.exposure != 0)),
        trades=len(trades),
        fees=math.fsum(trades.fees.tolist()),
        turnover=traded / float(np.mean(equity)),
        buy_and_hold_percent=100 * market,
        excess_percent=100 * (total - market),
        ruined=ruined,
        returns=len(returns),
        sharpe_per_candle=moments.sharpe,
        skew=moments.skew,
        kurtosis=moments.kurtosis,
    )


class Fall(NamedTuple):
    """The deepest fall of a curve; all three are places in it."""

    depth: float
    """Share of the peak that was lost, 0 to 1."""
    peak: int
    bottom: int
    end: int
    """Where the peak was reached again, or the last place."""


def find_deepest_fall(equity: FloatArray, drawdowns: FloatArray) -> Fall:
    """Find the deepest fall from a peak; of equal ones the first.

    Args:
        equity: (n,) float64, at least one cell, the first above 0.
        drawdowns: of this equity, by `find_drawdowns`.
    """
    bottom = int(np.argmax(drawdowns))
    peak = int(np.argmax(equity[: bottom + 1]))
    recovered = np.flatnonzero(equity[bottom:] >= equity[peak])
    end = bottom + int(recovered[0]) if len(recovered) else len(equity) - 1
    return Fall(float(drawdowns[bottom]), peak, bottom, end)


def find_drawdowns(equity: FloatArray) -> FloatArray:
    """Return the share of the highest equity so far that is lost, (n,) float64, 0 to 1.

    Args:
        equity: (n,) float64, at least one cell, the first above 0.
    """
    peaks = np.maximum.accumulate(equity)
    return (peaks - np.maximum(equity, 0.0)) / peaks


class _Moments(NamedTuple):
    """Of the returns per candle; None where there is nothing to measure."""

    deviation: float | None = None
    sharpe: float | None = None
    sortino: float | None = None
    skew: float | None = None
    kurtosis: float | None = None


def _moments(returns: FloatArray) -> _Moments:
    if len(returns) < 2:
        return _Moments()
    mean, count = float(np.mean(returns)), len(returns)
    around = returns - mean
    squares = around * around  # numpy's power takes ten times as long
    spread = float(np.mean(squares))
    deviation = math.sqrt(spread * count / (count - 1))
    if deviation < LEAST_DEVIATION:
        return _Moments(0.0)
    losses = np.minimum(returns, 0.0)
    downside = math.sqrt(float(np.mean(losses * losses)))
    return _Moments(
        deviation,
        mean / deviation,
        mean / downside if downside >= LEAST_DEVIATION else None,
        float(np.mean(squares * around)) / spread**1.5,
        float(np.mean(squares * squares)) / spread**2,
    )


def _returns(equity: FloatArray) -> FloatArray:
    # nothing is earned or lost on nothing: after ruin there are no returns
    alive = equity if equity[-1] > 0 else equity[: np.argmin(equity > 0) + 1]
    return alive[1:] / alive[:-1] - 1


def _until_ruin(equity: FloatArray) -> tuple[FloatArray, bool]:
    lost = np.flatnonzero(equity <= 0)
    if not len(lost):
        return equity, False
    kept = equity.copy()
    kept[lost[0] :] = 0.0
    return kept, True


def _periods_per_year(
    candles: int, elapsed_ms: float, timeframe: Timeframe, hours_per_year: float | None
) -> float | None:
    if hours_per_year is not None:
        if not hours_per_year > 0:
            raise ValueError(f"expected hours_per_year above 0, found {hours_per_year}")
        return hours_per_year * (timedelta(hours=1) / timeframe.duration)
    return (candles - 1) * YEAR_MS / elapsed_ms if elapsed_ms else None


def _cagr_percent(total: float, elapsed_ms: float) -> float | None:
    if not elapsed_ms:
        return None
    if total <= -1:
        return -100.0
    try:
        return 100 * math.expm1(math.log1p(total) * YEAR_MS / elapsed_ms)
    except OverflowError:  # a gain of minutes, compounded for a year, is no number
        return None


def _annual(value: float | None, per_year: float | None, factor: float = 1.0) -> float | None:
    if value is None or per_year is None:
        return None
    return value * math.sqrt(per_year) * factor


def _profit_factor(profits: FloatArray) -> float | None:
    lost = -math.fsum(profits[profits < 0].tolist())
    return math.fsum(profits[profits > 0].tolist()) / lost if lost else None


def _check(curve: Curve) -> None:
    count = len(curve.times_ms)
    if not count:
        raise ValueError("expected a curve of at least one candle, found none")
    for name, column in zip(curve._fields, curve, strict=True):
        if column.shape != (count,):
            raise ValueError(f"expected {name} of shape {(count,)} like times_ms, found {column.shape}")
        is_finite = np.isfinite(column)
        if not is_finite.all():
            place = int(np.argmin(is_finite))
            raise ValueError(f"expected finite numbers in {name}, found {column[place]} at cell {place}")
    if curve.equity[0] <= 0:
        raise ValueError(f"expected a capital above 0 in the first cell of equity, found {curve.equity[0]}")
    if np.any(curve.close <= 0):
        raise ValueError(f"expected closes above 0, found {curve.close.min()}")
    if np.any(np.diff(curve.times_ms) <= 0):
        raise ValueError("expected times_ms to ascend, found a candle that does not close after the one before")
