"""Supertrend: long while the close holds above the ratcheted lower band, short while below the upper one."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, in_ranges, signals_from_score


class Supertrend(Strategy):
    """Trend: the side of the supertrend level the close is on.

    score = (close - level) / (multiplier * ATR): full strength a whole band away from the turning point.
    stop = level, where that is a price: a few ATRs can be more than the price itself.
    edge = strength * ATR in percent of the close.
    Source: Seban's supertrend, with the usual 10 and 3.
    """

    class Params(Strategy.Params):
        """Period in candles, multiplier in ATRs."""

        period: Annotated[int, Field(ge=1, le=500)] = 10
        multiplier: Annotated[float, Field(ge=0.1, le=20)] = 3.0

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare the level and the ATR it is built from."""
        period = self.params.period
        return {"level": Indicator.supertrend(period, self.params.multiplier), "atr": Indicator.atr(period)}

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score the distance from the level; the close is above it exactly while the trend is up."""
        level, atr = indicators["level"], indicators["atr"]
        score = in_ranges(bars.close - level, atr, bars.close) / self.params.multiplier
        stop = np.where(level > 0.0, level, np.nan)
        return signals_from_score(score, atr, bars.close, stop=stop)
