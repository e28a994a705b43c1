"""A strategy that a test puts to sleep."""

from __future__ import annotations

import time
from pathlib import Path

from app.strategies.sdk import Context, Signal, Strategy


class Sleeper(Strategy):
    """Sleeps for as long as a file exists."""

    class Params(Strategy.Params):
        """Where to look."""

        while_exists: str

    params: Params

    def on_candle(self, context: Context) -> Signal:
        """Wait, then answer."""
        while Path(self.params.while_exists).exists():
            time.sleep(0.05)
        return Signal(action=1)
