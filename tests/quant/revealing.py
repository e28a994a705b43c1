"""Well-behaved strategies that tell what they saw, so that a test can compare it with what they should have seen."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from app.strategies.bars import Bars
from app.strategies.sdk import Context, Signal, Strategy


def digest(bars: Bars) -> str:
    """Return a fingerprint of every number of a window."""
    columns = (bars.open_time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


class Digest(Strategy):
    """Keeps the fingerprint of its window, and how often this very instance was asked in this process."""

    def __init__(self, params: Strategy.Params | None = None, *, name: str | None = None) -> None:
        super().__init__(params, name=name)
        self.calls = 0

    def on_candle(self, context: Context) -> Signal:
        self.calls += 1
        extras = {"digest": digest(context.bars), "calls": self.calls, "pid": os.getpid()}
        return Signal(action=1, strength=0.5, extras={**extras, "length": len(context.bars)})


class Meeting(Strategy):
    """Like Digest, but answers only once two processes are in it for the same candle: both slots are at work."""

    class Params(Strategy.Params):
        """Where the two leave their marks; another place for each run."""

        folder: str

    params: Params

    def on_candle(self, context: Context) -> Signal:
        candle = f"{context.bars.open_time[-1]}-{context.close!r}"
        folder = Path(self.params.folder)
        (folder / f"{candle}.{os.getpid()}").touch()
        while len(list(folder.glob(f"{candle}.*"))) < 2:
            time.sleep(0.002)
        return Signal(action=0, strength=0.0, extras={"digest": digest(context.bars)})


class Slow(Strategy):
    """Works for a while before it answers."""

    class Params(Strategy.Params):
        """How long."""

        seconds: float = 0.02

    params: Params

    def on_candle(self, context: Context) -> Signal:
        time.sleep(self.params.seconds)
        return Signal(action=-1, strength=1.0)
