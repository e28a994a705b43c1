from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from app.domain.candles import Timeframe
from app.errors import ConfigurationError
from app.feeds.base import Feed
from app.feeds.generated import GeneratedFeed
from tests.unit.feeds.writing import flatten

START = datetime(2024, 1, 1, tzinfo=UTC)


def _feed(symbols: tuple[str, ...] = ("BTC-USDT", "ETH-USDT"), count: int = 50, seed: int = 7) -> GeneratedFeed:
    return GeneratedFeed(symbols, Timeframe.H1, count, seed, START)


def test_one_candle_of_every_symbol_per_close_without_gaps() -> None:
    feed = _feed()
    batches = list(feed.batches())
    assert [[candle.symbol for candle in batch] for batch in batches] == [["BTC-USDT", "ETH-USDT"]] * 50
    assert [batch[0].open_time for batch in batches] == [START + hour * timedelta(hours=1) for hour in range(50)]
    assert feed.report.accepted == 100
    assert feed.progress() == 1.0


def test_it_says_that_it_is_generated() -> None:
    feed: Feed = _feed(seed=7)
    assert feed.source == "generated:seed=7"


def test_the_same_seed_gives_the_same_candles_whatever_runs_beside() -> None:
    assert list(_feed().batches()) == list(_feed().batches())
    assert [batch[0] for batch in _feed().batches()] == flatten(list(_feed(("BTC-USDT",)).batches()))
    assert flatten(list(_feed(seed=8).batches())) != flatten(list(_feed().batches()))
    longer = list(_feed(count=1500).batches())
    assert longer[:50] == list(_feed().batches())


def test_the_candles_of_a_seed_stay_what_they_are() -> None:
    prices = [
        (candle.open, candle.high, candle.low, candle.close, candle.volume)
        for candle in flatten(list(_feed(count=3000).batches()))
    ]
    assert hashlib.sha256(repr(prices).encode()).hexdigest()[:16] == "2f2ef0165e7af95e"


def test_it_walks_like_a_market() -> None:
    candles = flatten(list(_feed(("BTC-USDT",), count=5000).batches()))
    closes = np.array([candle.close for candle in candles])
    returns = np.diff(np.log(closes))
    size = np.abs(returns) - np.abs(returns).mean()
    clustering = float((size[1:] * size[:-1]).mean() / size.var())
    assert all(before.close == after.open for before, after in pairwise(candles))
    assert 0.001 < returns.std() < 0.03
    assert clustering > 0.1
    assert np.mean([candle.high > max(candle.open, candle.close) for candle in candles]) > 0.9


@pytest.mark.parametrize(
    ("symbols", "count", "seed", "start"),
    [
        ((), 1, 1, START),
        (("A", "A"), 1, 1, START),
        (("A",), 0, 1, START),
        (("A",), 1, -1, START),
        (("A",), 1, 1, START + timedelta(minutes=1)),
        (("A",), 1, 1, START.replace(tzinfo=None)),
    ],
)
def test_what_makes_no_sense_is_refused(symbols: tuple[str, ...], count: int, seed: int, start: datetime) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        GeneratedFeed(symbols, Timeframe.H1, count, seed, start)
