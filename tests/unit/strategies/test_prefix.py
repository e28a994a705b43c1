"""No look-ahead: what a strategy says about a candle does not change when later candles become known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.strategies.bars import Bars
from app.strategies.builtin import BUILTINS
from app.strategies.evaluation import evaluate
from app.strategies.indicators import IndicatorCache
from tests.unit.strategies.market import build_bars, random_walk, real_bars

NAMES = sorted(BUILTINS)
REAL_SETS = (
    "binance-1h-2021/BTC-USDT-1h.csv.gz",
    "bittrex-5m-2018/XMR-BTC-5m.csv.gz",
    "sparse-2019/XRP-ETH-1m.csv.gz",
    "binanceus-1m-2023/BTC-USDC-1m.csv.gz",
    "fx/GBP-USD-1m.csv.gz",
    "ftx-1h-2021/AMZN-USD-1h.csv.gz",
)


def assert_prefix_equals_whole(name: str, bars: Bars, count: int) -> None:
    strategy = BUILTINS[name]()
    whole = strategy.signals(bars, IndicatorCache(bars).select(strategy.declared))
    head = bars.first(count)
    part = strategy.signals(head, IndicatorCache(head).select(strategy.declared))
    for known, later in zip(part[:5], whole[:5], strict=True):  # the columns
        if known is not None and later is not None:
            assert np.array_equal(known, later[:count], equal_nan=True)
    if count >= strategy.warmup:
        signal = evaluate(strategy, head)
        assert (signal.action, signal.strength) == (whole.action[count - 1], whole.strength[count - 1])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(1, 400),
    share=st.floats(0.0, 1.0),
    volatility=st.sampled_from([0.0, 1e-6, 0.01, 0.3]),
    price=st.sampled_from([5.33e-05, 1.0, 43210.1]),
)
def test_random_walks(name: str, seed: int, length: int, share: float, volatility: float, price: float) -> None:
    bars = random_walk(length, seed=seed, price=price, volatility=volatility)
    assert_prefix_equals_whole(name, bars, max(1, round(length * share)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    closes=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=260),
    volume=st.sampled_from([0.0, 1e-9, 1.0, 1e12]),
    share=st.floats(0.0, 1.0),
)
def test_arbitrary_closes(name: str, closes: list[float], volume: float, share: float) -> None:
    bars = build_bars(closes, volume=np.full(len(closes), volume))
    assert_prefix_equals_whole(name, bars, max(1, round(len(closes) * share)))


@pytest.mark.parametrize("real", REAL_SETS)
@pytest.mark.parametrize("name", NAMES)
def test_real_candles(name: str, real: str) -> None:
    bars = real_bars(real, 3000)
    for count in (1, 2, 65, 141, 513, 777, 1200, len(bars) - 1):
        assert_prefix_equals_whole(name, bars, min(count, len(bars)))
