"""RSI reversion: long when the RSI is oversold, short when it is overbought."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, signals_from_score


class RsiReversion(Strategy):
    """Reversion: long below `lower`, short above `upper`, flat between.

    score = (lower - RSI) / lower below, (upper - RSI) / (100 - upper) above: how deep in the zone.
    edge = strength * ATR in percent of the close.
    Source: Wilder, New Concepts in Technical Trading Systems (1978): period 14, zones 30 and 70.
    """

    class Params(Strategy.Params):
        """Periods in candles, zones in RSI points."""

        period: Annotated[int, Field(ge=2, le=500)] = 14
        lower: Annotated[float, Field(ge=1, le=49)] = 30.0
        upper: Annotated[float, Field(ge=51, le=99)] = 70.0

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare the RSI and the ATR of the same period."""
        return {"rsi": Indicator.rsi(self.params.period), "atr": Indicator.atr(self.params.period)}

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score how deep in a zone the RSI is."""
        rsi, lower, upper = indicators["rsi"], self.params.lower, self.params.upper
        oversold = np.maximum(lower - rsi, 0.0) / lower
        overbought = np.maximum(rsi - upper, 0.0) / (100.0 - upper)
        return signals_from_score(oversold - overbought, indicators["atr"], bars.close)
