"""Stochastic: long when the oscillator turns up out of the oversold zone, short when it turns down from overbought."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, signals_from_score


class Stochastic(Strategy):
    """Momentum: %D in a zone and %K already on the way back.

    score = (lower - D) / lower where D < lower and K > D; (upper - D) / (100 - upper) where D > upper and K < D;
    else 0. edge = strength * ATR in percent of the close.
    Source: Lane, Lane's Stochastics (Technical Analysis of Stocks & Commodities, 1984): zones 20 and 80.
    """

    class Params(Strategy.Params):
        """Periods in candles, zones in points of 0 to 100."""

        period: Annotated[int, Field(ge=2, le=1000)] = 14
        smooth: Annotated[int, Field(ge=1, le=200)] = 3
        signal: Annotated[int, Field(ge=1, le=200)] = 3
        lower: Annotated[float, Field(ge=1, le=49)] = 20.0
        upper: Annotated[float, Field(ge=51, le=99)] = 80.0
        atr_period: Annotated[int, Field(ge=2, le=1000)] = 14

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare slow %K, %D and the ATR."""
        chosen = self.params
        periods = (chosen.period, chosen.smooth, chosen.signal)
        return {
            "k": Indicator.stochastic(*periods, line="k"),
            "d": Indicator.stochastic(*periods, line="d"),
            "atr": Indicator.atr(chosen.atr_period),
        }

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score how deep %D is in a zone that %K is leaving."""
        k, d, lower, upper = indicators["k"], indicators["d"], self.params.lower, self.params.upper
        oversold = np.maximum(lower - d, 0.0) / lower * (k > d)
        overbought = np.maximum(d - upper, 0.0) / (100.0 - upper) * (k < d)
        return signals_from_score(oversold - overbought, indicators["atr"], bars.close)
