"""ATR channel breakout: long when the close is above an average plus some ATRs, short when below minus as many."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, in_ranges, signals_from_score


class AtrChannelBreakout(Strategy):
    """Breakout: out of the channel EMA(period) +- multiplier * ATR(atr_period).

    d = (close - EMA) / ATR. score = (|d| - multiplier) with the sign of d where |d| > multiplier, else 0: full
    strength one ATR outside the channel.
    stop = EMA. edge = strength * ATR in percent of the close.
    Source: Keltner's channel in the ATR form of Raschke (EMA 20, ATR 10, multiplier 2), used as a breakout as in
    Faith, Way of the Turtle (2007).
    """

    class Params(Strategy.Params):
        """Periods in candles, multiplier in ATRs."""

        period: Annotated[int, Field(ge=2, le=1000)] = 20
        atr_period: Annotated[int, Field(ge=2, le=1000)] = 10
        multiplier: Annotated[float, Field(ge=0.1, le=20)] = 2.0

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare the middle of the channel and the ATR that makes its width."""
        return {"middle": Indicator.ema(self.params.period), "atr": Indicator.atr(self.params.atr_period)}

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score how far outside the channel the close is, in ATRs."""
        middle, atr = indicators["middle"], indicators["atr"]
        away = in_ranges(bars.close - middle, atr, bars.close)
        score = np.copysign(np.maximum(np.abs(away) - self.params.multiplier, 0.0), away)
        return signals_from_score(score, atr, bars.close, stop=middle)
