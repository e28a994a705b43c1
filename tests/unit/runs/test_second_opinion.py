"""Metrics of a known strategy on real candles, against what empyrical says; second_opinion.py asks it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from app.runs.metrics import compute
from tests.unit.runs.curves import NO_TRADES
from tests.unit.runs.second_opinion import GENERATED, ema_cross_curve, load

#: As empyrical-reloaded 0.7.1 gives them: total return, CAGR, volatility, Sharpe, Sortino, maximum drawdown.
NAMES = ("total_return_percent", "cagr_percent", "volatility_percent", "sharpe", "sortino", "max_drawdown_percent")
SAYS = {
    GENERATED: (-4.649017429, -12.990232, 15.21961407, -0.8381999059, -1.183382635, 12.27028742),
    "binance-1h-2021/BTC-USDT-1h.csv.gz": (
        *(-14.67222414, -14.04953121, 21.4462857),
        *(-0.5988198155, -0.8761065116, 28.31485127),
    ),
    "us-equity-1h/SPY-USD-1h.csv.gz": (
        *(2.07203812, 0.6345606683, 5.195227117),
        *(0.1477079118, 0.2139034076, 8.153246032),
    ),
    "daily/GOOG-USD-1d.csv.gz": (
        *(58.83592491, 5.573452906, 8.535570971),
        *(0.6781642671, 0.9842658486, 18.29425475),
    ),
}


@pytest.mark.parametrize("name", SAYS)
def test_empyrical_says_the_same(name: str) -> None:
    bars = load(name)
    if bars is None:
        pytest.skip(f"no real candles: ../shared/data/{name} does not exist")
    curve = ema_cross_curve(bars)
    metrics = compute(curve, NO_TRADES, bars.timeframe)
    assert [getattr(metrics, each) for each in NAMES] == pytest.approx(SAYS[name], rel=1e-8)
    returns = np.diff(curve.equity) / curve.equity[:-1]
    assert metrics.skew == pytest.approx(scipy.stats.skew(returns), rel=1e-9)
    assert metrics.kurtosis == pytest.approx(scipy.stats.kurtosis(returns, fisher=False), rel=1e-9)
    assert metrics.buy_and_hold_percent == pytest.approx(100 * (bars.close[-1] / bars.close[0] - 1))
