"""Markets to verify on: generated ones of several characters, the same on every machine, and real candles if there are.

The characters are what strategies stumble over: calm and nervous stretches, a long trend, a market that stands still
for a while and has no volume then, and a cheap symbol that gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np

from app.domain.candles import Timeframe
from app.feeds.generated import GeneratedFeed
from app.strategies.bars import Bars, FloatArray

#: Candles of each generated market: 10,000 in all.
CANDLES = 2_500

#: Candles of the generated markets; any would do, these are what every verification has in common.
SEED = 20_240
START = datetime(2024, 1, 1, tzinfo=UTC)

#: Growth of the trending market, share of the price for each candle.
DRIFT = 0.0015

#: The market that stands still does so in the first so many of every so many candles.
STILL, CYCLE = 60, 400

#: The cheap market's price as a share of the generated one, and its jump every so many candles.
CHEAP, GAP, GAP_EVERY = 1e-3, 1.06, 300


#: Generated markets, the first ones, that never stand still.
LIVELY = 3


@cache
def generate_markets() -> tuple[Bars, ...]:
    """Generate the markets: calm, trending, cheap; and one that stands still at times, the last."""
    symbols = ("CALM-GEN", "CHEAP-GEN", "STILL-GEN", "TREND-GEN")
    feed = GeneratedFeed(symbols, Timeframe.H1, CANDLES, SEED, START)
    rows = list(feed.batches())
    calm, cheap, still, trend = (Bars.from_candles([row[place] for row in rows]) for place in range(len(symbols)))
    growth = np.exp(DRIFT * np.arange(CANDLES))
    return calm, _multiplied(trend, growth), _multiplied(cheap, _gaps()), _still(still)


def on_timeframe(markets: Sequence[Bars], timeframe: Timeframe) -> list[Bars]:
    """Return the same candles as those of another timeframe: only their times differ."""
    length_ms = timeframe.duration // timedelta(milliseconds=1)
    opened = round(START.timestamp() * 1000) + np.arange(CANDLES) * length_ms
    return [replace(bars, timeframe=timeframe, open_time=opened) for bars in markets]


def shorten(series: Sequence[Bars], most: int) -> list[Bars]:
    """Keep the newest candles of each series, so that there are about `most` in all."""
    each = max(1, most // max(1, len(series)))
    return [bars.last(each) for bars in series]


def _gaps() -> FloatArray:
    return np.where(np.arange(CANDLES) // GAP_EVERY % 2, CHEAP * GAP, CHEAP)


def _multiplied(bars: Bars, factor: FloatArray) -> Bars:
    prices = (bars.open * factor, bars.high * factor, bars.low * factor, bars.close * factor)
    return Bars(bars.symbol, bars.timeframe, bars.open_time, *prices, bars.volume)


def _still(bars: Bars) -> Bars:
    """Return the market with stretches in which every candle is the last close before, without volume."""
    places = np.arange(len(bars))
    stands = places % CYCLE < STILL
    price = bars.close[np.maximum(places - places % CYCLE - 1, 0)]
    opened, high, low, close = (np.where(stands, price, each) for each in (bars.open, bars.high, bars.low, bars.close))
    volume = np.where(stands, 0.0, bars.volume)
    return Bars(bars.symbol, bars.timeframe, bars.open_time, opened, high, low, close, volume)
