"""ADX trend: with the stronger directional index while the ADX says that there is a trend."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, signals_from_score


class AdxTrend(Strategy):
    """Trend: the sign of +DI - -DI where the ADX is above `threshold`, else flat.

    score = sign(+DI - -DI) * (ADX - threshold) / threshold: full strength at twice the threshold.
    edge = strength * ATR in percent of the close.
    Source: Wilder, New Concepts in Technical Trading Systems (1978): period 14, and 25 as the usual threshold.
    """

    class Params(Strategy.Params):
        """Period in candles, threshold in ADX points."""

        period: Annotated[int, Field(ge=2, le=500)] = 14
        threshold: Annotated[float, Field(ge=5, le=50)] = 25.0

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare the three directional lines and the ATR of the same period."""
        period = self.params.period
        return {
            "adx": Indicator.adx(period, line="adx"),
            "plus": Indicator.adx(period, line="plus_di"),
            "minus": Indicator.adx(period, line="minus_di"),
            "atr": Indicator.atr(period),
        }

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score how far the ADX is above its threshold, with the direction of the stronger index."""
        threshold = self.params.threshold
        beyond = np.maximum(indicators["adx"] - threshold, 0.0) / threshold
        score = beyond * np.sign(indicators["plus"] - indicators["minus"])
        return signals_from_score(score, indicators["atr"], bars.close)
