"""Strategies whose positions tests look at: what they say depends on the candle's time alone."""

from __future__ import annotations

from app.strategies.sdk import Context, Signal, Strategy

HOUR_MS = 3_600_000


class Restless(Strategy):
    """Says something else every few candles, states levels, and fails at one candle in nine."""

    def on_candle(self, context: Context) -> Signal:
        number = int(context.bars.open_time[context.index]) // HOUR_MS
        if number % 9 == 4:
            raise ValueError(f"candle {number} is one of those")
        action = (0, 1, 1, 1, -1, -1, 1)[number // 3 % 7]
        away = 1 - 0.02 * action
        return Signal(
            action=action, strength=(1 + number % 4) / 4, stop=context.close * away, target=context.close / away
        )


class Follows(Strategy):
    """Long, flat or short as its params say, candle by candle, counted from an open time."""

    class Params(Strategy.Params):
        """What it says."""

        since_ms: int = 0
        script: str = "+"
        """One of + 0 - for each candle; the last one goes on."""

    params: Params

    def on_candle(self, context: Context) -> Signal:
        number = (int(context.bars.open_time[context.index]) - self.params.since_ms) // HOUR_MS
        word = self.params.script[min(max(0, number), len(self.params.script) - 1)]
        return Signal(action={"+": 1, "0": 0, "-": -1}[word], strength=1.0)
