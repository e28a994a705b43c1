"""Strategies for tests with real workers: slow, loud and failing ones."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from app.strategies.sdk import Context, Signal, Strategy


class Sleeps(Strategy):
    """Does nothing for a long time."""

    class Params(Strategy.Params):
        """How long, and which file says that it has begun."""

        seconds: float = 60.0
        begun: str = ""

    params: Params

    def on_candle(self, context: Context) -> Signal:
        if self.params.begun:
            Path(self.params.begun).touch()
        time.sleep(self.params.seconds)
        return Signal(action=1)


class Waits(Strategy):
    """Says that it has begun, and goes on when it may."""

    class Params(Strategy.Params):
        """Which file says that it has begun, and which that it may go on."""

        begun: str
        go: str

    params: Params

    def on_candle(self, context: Context) -> Signal:
        Path(self.params.begun).touch()
        while not Path(self.params.go).exists():
            time.sleep(0.01)
        return Signal(action=1)


class Loud(Strategy):
    """Says something through the standard library, then fails."""

    def on_candle(self, context: Context) -> Signal:
        logging.getLogger("quant").warning("about to fail")
        raise ValueError("on purpose")
