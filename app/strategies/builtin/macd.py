"""MACD: long while the MACD line is above its signal line, short while below."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, in_ranges, signals_from_score

#: Histogram, in ATRs, that counts as full strength. The histogram is a difference of differences, so it is small:
#: in a year of hourly BTC-USDT candles its 95th percentile was 0.4 ATR. Chosen by us.
FULL_HISTOGRAM = 0.5


class Macd(Strategy):
    """Momentum: the sign of the MACD histogram.

    score = histogram / (0.5 * ATR). edge = strength * ATR in percent of the close.
    Source: Appel, Technical Analysis: Power Tools for Active Investors (2005): 12, 26, 9.
    """

    class Params(Strategy.Params):
        """Periods in candles."""

        fast: Annotated[int, Field(ge=2, le=1000)] = 12
        slow: Annotated[int, Field(ge=3, le=2000)] = 26
        signal: Annotated[int, Field(ge=1, le=500)] = 9
        atr_period: Annotated[int, Field(ge=2, le=1000)] = 14

        @model_validator(mode="after")
        def _check_order(self) -> Self:
            if self.fast >= self.slow:
                raise ValueError(f"fast must be below slow, found fast {self.fast} and slow {self.slow}")
            return self

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare the histogram and the ATR it is measured in."""
        periods = self.params
        return {
            "histogram": Indicator.macd(periods.fast, periods.slow, periods.signal, line="histogram"),
            "atr": Indicator.atr(periods.atr_period),
        }

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score the histogram in ATRs."""
        atr = indicators["atr"]
        score = in_ranges(indicators["histogram"], atr, bars.close) / FULL_HISTOGRAM
        return signals_from_score(score, atr, bars.close)
