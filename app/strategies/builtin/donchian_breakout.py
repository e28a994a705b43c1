"""Donchian breakout: long when the close exceeds the highest high of the candles before, short below the lowest low."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, in_ranges, signals_from_score


class DonchianBreakout(Strategy):
    """Breakout: out of the channel of the `entry` candles before this one.

    score = (close - upper) / ATR above the channel, (close - lower) / ATR below it, else 0.
    stop = the opposite extreme of the `exit` candles before. edge = strength * ATR in percent of the close.
    Source: Donchian's channel; entry 20 and exit 10 are system 1 in Faith, Way of the Turtle (2007).
    """

    class Params(Strategy.Params):
        """Periods in candles."""

        entry: Annotated[int, Field(ge=2, le=1000)] = 20
        exit: Annotated[int, Field(ge=2, le=1000)] = 10
        atr_period: Annotated[int, Field(ge=2, le=1000)] = 20

        @model_validator(mode="after")
        def _check_order(self) -> Self:
            if self.exit > self.entry:
                raise ValueError(f"exit must not exceed entry, found exit {self.exit} and entry {self.entry}")
            return self

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare both channels and the ATR the breakout is measured in."""
        entry, leave = self.params.entry, self.params.exit
        return {
            "upper": Indicator.donchian(entry, line="upper"),
            "lower": Indicator.donchian(entry, line="lower"),
            "exit_upper": Indicator.donchian(leave, line="upper"),
            "exit_lower": Indicator.donchian(leave, line="lower"),
            "atr": Indicator.atr(self.params.atr_period),
        }

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score the breakout in ATRs."""
        close, atr = bars.close, indicators["atr"]
        above, below = close - indicators["upper"], close - indicators["lower"]
        score = in_ranges(np.maximum(above, 0.0) + np.minimum(below, 0.0), atr, close)
        stop = np.where(above > 0.0, indicators["exit_lower"], indicators["exit_upper"])
        return signals_from_score(score, atr, close, stop=stop)
