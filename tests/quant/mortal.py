"""Strategies for runs over many markets: one of the markets is the end of them."""

from __future__ import annotations

import os
import signal

from app.strategies.sdk import Context, Signal, Strategy


class DiesOn(Strategy):
    """Long with an edge, and takes its process down on one market."""

    class Params(Strategy.Params):
        """Which one."""

        symbol: str

    params: Params

    def on_candle(self, context: Context) -> Signal:
        if context.bars.symbol == self.params.symbol:
            os.kill(os.getpid(), signal.SIGKILL)
        return Signal(action=1, strength=1.0, edge=20.0)


class FailsOn(Strategy):
    """Long with an edge, and raises on one market."""

    class Params(Strategy.Params):
        """Which one."""

        symbol: str

    params: Params

    def on_candle(self, context: Context) -> Signal:
        if context.bars.symbol == self.params.symbol:
            raise ValueError("not this one")
        return Signal(action=1, strength=1.0, edge=20.0)
