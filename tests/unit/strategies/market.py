"""Windows to test with: seeded random walks, flat and odd markets, and the real candles when they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.candles import Timeframe
from app.strategies.bars import Bars

#: Real candles live beside the repository, not in it.
REAL_DATA = Path(__file__).parents[3].parent / "shared" / "data"
HOUR_MS = 3_600_000


def build_bars(close: Any, high: Any = None, low: Any = None, volume: Any = None) -> Bars:
    """Build hourly bars from closes; open is the close before, high and low default to containing both."""
    closes = np.asarray(close, np.float64)
    opens = np.concatenate([closes[:1], closes[:-1]])
    highs = np.maximum(opens, closes) if high is None else np.asarray(high, np.float64)
    lows = np.minimum(opens, closes) if low is None else np.asarray(low, np.float64)
    volumes = np.ones_like(closes) if volume is None else np.asarray(volume, np.float64)
    times = np.arange(len(closes), dtype=np.int64) * HOUR_MS
    return Bars("BTC-USDT", Timeframe.H1, times, opens, highs, lows, closes, volumes)


def random_walk(count: int, seed: int = 7, price: float = 100.0, volatility: float = 0.01) -> Bars:
    """Build a seeded walk with wicks, some silent flat candles and uneven volume."""
    random = np.random.default_rng(seed)
    steps = random.normal(0.0, volatility, count) * (random.random(count) > 0.1)
    close = price * np.exp(np.cumsum(steps))
    opens = np.concatenate([close[:1], close[:-1]])
    wicks = np.abs(random.normal(0.0, volatility / 2, (2, count))) * (steps != 0.0)
    high = np.maximum(opens, close) * (1 + wicks[0])
    low = np.minimum(opens, close) / (1 + wicks[1])
    return build_bars(close, high, low, random.gamma(1.0, 10.0, count) * (steps != 0.0))


def scaled(bars: Bars, factor: float) -> Bars:
    """Multiply all prices."""
    prices = (bars.open * factor, bars.high * factor, bars.low * factor, bars.close * factor)
    return Bars(bars.symbol, bars.timeframe, bars.open_time, *prices, bars.volume)


def real_bars(name: str, count: int) -> Bars:
    """Load the first rows of a real set, or skip."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"no real candles: {name} is not in ../shared/data")
    rows = np.loadtxt(path, delimiter=",", skiprows=1, max_rows=count)
    symbol, _, frame = path.name.removesuffix(".csv.gz").rpartition("-")
    return Bars(symbol, Timeframe(frame), rows[:, 0].astype(np.int64), *rows[:, 1:6].T)
