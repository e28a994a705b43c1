"""VWAP reversion: back to the rolling volume-weighted average price once the close is some ATRs away from it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from app.strategies.sdk import Bars, Indicator, Lines, Signals, Strategy, in_ranges, signals_from_score


class VwapReversion(Strategy):
    """Reversion: long when the close is more than `distance` ATRs below the VWAP, short when as far above.

    d = (VWAP - close) / ATR. score = (|d| / distance - 1) with the sign of d where |d| > distance, else 0: full
    strength at twice the distance. No volume in the whole period: no VWAP, no signal.
    target = VWAP. edge = strength * distance to the target in percent of the close.
    Source: VWAP after Berkowitz, Logue and Noser (Journal of Finance, 1988), rolling instead of by session because
    these markets have none; the distance rule and its default are ours.
    """

    class Params(Strategy.Params):
        """Periods in candles, distance in ATRs."""

        period: Annotated[int, Field(ge=2, le=1000)] = 48
        atr_period: Annotated[int, Field(ge=2, le=1000)] = 14
        distance: Annotated[float, Field(ge=0.1, le=20)] = 2.0

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        """Declare the rolling VWAP and the ATR the distance is measured in."""
        return {"vwap": Indicator.vwap(self.params.period), "atr": Indicator.atr(self.params.atr_period)}

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Score how far beyond the distance the close is."""
        vwap = indicators["vwap"]
        gap = vwap - bars.close
        away = in_ranges(gap, indicators["atr"], bars.close) / self.params.distance
        score = np.copysign(np.maximum(np.abs(away) - 1.0, 0.0), away)
        return signals_from_score(score, np.abs(gap), bars.close, target=vwap)
