"""What empyrical says about a known strategy: another library, other code.

It is not among the requirements (docs/adr/0011-metrics.md). With empyrical-reloaded 0.7.1 installed,
`python -m tests.unit.runs.second_opinion` prints the numbers that test_second_opinion.py holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.feeds.replay import ReplayFeed
from app.runs.shapes import Curve
from app.strategies.bars import Bars
from app.strategies.builtin.ema_cross import EmaCross
from app.strategies.indicators import IndicatorCache
from tests.building import walk
from tests.unit.feeds.writing import flatten

DATA = Path(__file__).parents[4] / "shared" / "data"
GENERATED = "generated"
REAL = (
    "binance-1h-2021/BTC-USDT-1h.csv.gz",
    "us-equity-1h/SPY-USD-1h.csv.gz",
    "daily/GOOG-USD-1d.csv.gz",
)

#: Share of the traded value, fee and slippage together.
COST = 0.001


def load(name: str) -> Bars | None:
    """Load a series; None when it does not lie next to the repository."""
    if name == GENERATED:
        return Bars.from_candles(walk("BTC-USD", 3000))
    path = DATA / name
    return Bars.from_candles(flatten(list(ReplayFeed([path]).batches()))) if path.exists() else None


def ema_cross_curve(bars: Bars) -> Curve:
    """Trade EMA 12 over 26 with a part of the equity, long and short, from the close after the signal's on."""
    strategy = EmaCross()
    action = strategy.signals(bars, IndicatorCache(bars).select(strategy.declared)).action
    held = 0.25 * np.concatenate([[0.0], action[:-1].astype(np.float64)])
    moves = bars.close[1:] / bars.close[:-1] - 1
    returns = held[:-1] * moves - COST * np.abs(np.diff(held))
    equity = 10_000 * np.cumprod(np.concatenate([[1.0], 1 + returns]))
    closes = bars.open_time + round(bars.timeframe.duration.total_seconds() * 1000)
    return Curve(closes, equity, held, bars.close)


def ask(curve: Curve) -> Iterator[tuple[str, float]]:
    """Yield what empyrical says, under our names."""
    import empyrical

    per_year = (len(curve.close) - 1) * 365.25 * 86_400_000 / float(np.ptp(curve.times_ms))
    returns = np.diff(curve.equity) / curve.equity[:-1]
    yield "total_return_percent", 100 * empyrical.cum_returns_final(returns)
    yield "cagr_percent", 100 * empyrical.annual_return(returns, annualization=per_year)
    yield "volatility_percent", 100 * empyrical.annual_volatility(returns, annualization=per_year)
    yield "sharpe", empyrical.sharpe_ratio(returns, annualization=per_year)
    yield "sortino", empyrical.sortino_ratio(returns, annualization=per_year)
    yield "max_drawdown_percent", -100 * empyrical.max_drawdown(returns)


def main() -> None:
    """Print the numbers of all series that are there."""
    for name in (GENERATED, *REAL):
        if bars := load(name):
            numbers = {key: float(f"{value:.10g}") for key, value in ask(ema_cross_curve(bars))}
            print(name, numbers)  # noqa: T201 - a script that prints


if __name__ == "__main__":
    main()
