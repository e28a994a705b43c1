"""EMA cross: long while a fast exponential average of the close is above a slow one, short while below."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, in_ranges, signals_from_score


class EmaCross(Strategy):
    """Trend: the sign of EMA(fast) - EMA(slow).

    score = (EMA(fast) - EMA(slow)) / ATR; full strength when the averages are one ATR apart.
    edge = strength * ATR in percent of the close.
    Source: the crossover as in Murphy, Technical Analysis of the Financial Markets (1999), chapter 9.
    """

    class Params(Strategy.Params):
        """Periods in candles."""

        fast: Annotated[int, Field(ge=2, le=1000)] = 12
        slow: Annotated[int, Field(ge=3, le=2000)] = 26
        atr_period: Annotated[int, Field(ge=2, le=1000)] = 14

        @model_validator(mode="after")
        def _check_order(self) -> Self:
            if self.fast >= self.slow:
                raise ValueError(f"fast must be below slow, found fast {self.fast} and slow {self.slow}")
            return self

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare both averages and the ATR they are measured in."""
        periods = self.params
        return {
            "fast": Indicator.ema(periods.fast),
            "slow": Indicator.ema(periods.slow),
            "atr": Indicator.atr(periods.atr_period),
        }

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score the gap between the averages in ATRs."""
        atr = indicators["atr"]
        score = in_ranges(indicators["fast"] - indicators["slow"], atr, bars.close)
        return signals_from_score(score, atr, bars.close)
