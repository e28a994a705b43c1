"""Strategies of the benchmark. Nobody loads them unless CANDLEFLEET_STRATEGIES__MODULES allows it."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import Field

from app.strategies.sdk import Context, Signal, Strategy


class Light(Strategy):
    """A rule on the last few candles, about 12 microseconds with its evaluation: the close against their middle."""

    class Params(Strategy.Params):
        """How far it looks back."""

        look: Annotated[int, Field(ge=2, le=32)] = 8
        """Candles, its own included."""

    params: Params

    def candles_needed(self) -> int:
        """Return 1: with a shorter past it looks at what there is."""
        return 1

    def on_candle(self, context: Context) -> Signal:
        """Answer long above the middle and short below it, the surer the further away and the more was traded."""
        bars, last = context.bars, slice(max(0, context.index + 1 - self.params.look), context.index + 1)
        highs, lows = bars.high[last], bars.low[last]
        spread, middle = float(highs.max() - lows.min()), float(highs.mean() + lows.mean()) / 2
        away, usual = context.close - middle, float(bars.volume[last].mean())
        if spread <= 0.0 or usual <= 0.0:
            return Signal(action=0, strength=0.0)
        liveliness = min(2.0, float(bars.volume[context.index]) / usual)
        strength = min(1.0, abs(away) / spread * liveliness)
        return Signal(action=1 if away > 0 else -1, strength=strength, edge=away / context.close * 100)


class Pausing(Light):
    """The same rule after a pause.

    It sleeps: a loop that keeps a core busy would measure how the kernel shares the cores, and not the fleet.
    """

    class Params(Light.Params):
        """How far it looks back and how long it pauses."""

        pause_ms: Annotated[float, Field(ge=0, le=1000)] = 10.0

    params: Params

    def on_candle(self, context: Context) -> Signal:
        """Answer after the pause."""
        time.sleep(self.params.pause_ms / 1000)
        return super().on_candle(context)
