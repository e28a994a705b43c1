"""Strategies that look at higher timeframes: one that does it right, and two that are wrong."""

from __future__ import annotations

import numpy as np

from app.domain.candles import Timeframe
from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy
from tests.quant.wrong import follow


class FollowsHigher(Strategy):
    """Right: follows an average of four-hour candles and the last day's close."""

    trend, day, atr = Indicator.ema(5).on("4h"), Indicator.candle().on("1d"), Indicator.atr(14)

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        line = (indicators["trend"] + indicators["day"]) / 2.0
        return follow(line, bars, indicators["atr"])


class PeeksIntoTheHigherCandle(Strategy):
    """Gives every candle the close of the four-hour candle that it is in."""

    atr = Indicator.atr(14)

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        bucket = bars.open_time // 14_400_000
        last = np.searchsorted(bucket, bucket, side="right") - 1
        return follow(bars.close[last], bars, indicators["atr"])


class WarmsUpTooShortlyForTheHigher(FollowsHigher):
    """Asks for as many candles as it would need of its own, not of the higher timeframe."""

    trend, day = Indicator.ema(20).on("4h"), Indicator.ema(20).on("4h")

    def candles_needed_on(self, timeframe: Timeframe) -> int:
        return self.declared["trend"].settled
