"""Bollinger reversion: long when the close is below the lower band, short when it is above the upper band."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, in_ranges, signals_from_score


class BollingerReversion(Strategy):
    """Reversion: back to the middle band from outside the bands.

    z = (close - middle) / (upper - middle). score = -(|z| - 1) with the sign of z where |z| > 1, else 0: full
    strength one half-width outside the band.
    target = middle. edge = strength * distance to the target in percent of the close.
    Source: Bollinger, Bollinger on Bollinger Bands (2001): 20 candles, 2 population standard deviations.
    """

    class Params(Strategy.Params):
        """Period in candles, width in standard deviations."""

        period: Annotated[int, Field(ge=2, le=1000)] = 20
        width: Annotated[float, Field(ge=0.1, le=10)] = 2.0

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare the upper band and the middle; the bands are symmetrical."""
        period, width = self.params.period, self.params.width
        return {
            "upper": Indicator.bollinger(period, width, line="upper"),
            "middle": Indicator.bollinger(period, width, line="middle"),
        }

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score how far outside the bands the close is."""
        middle = indicators["middle"]
        away = bars.close - middle
        z = in_ranges(away, indicators["upper"] - middle, bars.close)
        distance = np.abs(away)
        score = -np.copysign(np.maximum(np.abs(z) - 1.0, 0.0), z)
        return signals_from_score(score, distance, bars.close, target=middle)
