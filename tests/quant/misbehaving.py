"""What user code does wrong: each of these must hurt nobody but itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from app.errors import TransientError
from app.strategies.bars import Bars
from app.strategies.sdk import Context, Lines, Signal, Signals, Strategy
from tests.quant.revealing import digest


class Raises(Strategy):
    """Raises an error with a message that no database likes."""

    def on_candle(self, context: Context) -> Signal:
        raise ValueError("no idea what to do with \x00 this candle")


class PutsOff(Strategy):
    """Wants to be asked again, for ever."""

    def on_candle(self, context: Context) -> Signal:
        raise TransientError("not now")


class Unspeakable(Strategy):
    """Raises an error whose message cannot be built."""

    class Silent(Exception):  # noqa: N818 - user code is called what it likes
        """Fails again when it is shown."""

        def __str__(self) -> str:
            raise RuntimeError("not even this")

    def on_candle(self, context: Context) -> Signal:
        raise self.Silent


class Sleeps(Strategy):
    """Sleeps past any limit."""

    def on_candle(self, context: Context) -> Signal:
        time.sleep(60)
        return Signal(action=1)


class Stubborn(Strategy):
    """Swallows every exception it can catch, and goes on for ever."""

    def on_candle(self, context: Context) -> Signal:
        while True:
            with suppress(Exception):
                time.sleep(60)


class Dies(Strategy):
    """Takes its process down."""

    def on_candle(self, context: Context) -> Signal:
        os.kill(os.getpid(), signal.SIGKILL)
        return Signal(action=1)


class Greedy(Strategy):
    """Asks for more memory than there is."""

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, extras={"size": len(bytearray(2**62))})


class Hoards(Strategy):
    """Takes more and more, a megabyte at a time."""

    def on_candle(self, context: Context) -> Signal:
        hoard: list[bytes] = []
        while True:
            hoard.append(b"x" * 2**20)


class WantsAnArray(Strategy):
    """Asks numpy for more than a job may have, and for less than the machine has."""

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, extras={"sum": float(np.zeros(2**27).sum())})  # 1 GiB


class Leaks(Strategy):
    """Keeps some memory of every candle, for ever."""

    class Params(Strategy.Params):
        """How much."""

        mb: int

    params: Params
    kept: ClassVar[list[bytes]] = []

    def on_candle(self, context: Context) -> Signal:
        self.kept.append(b"x" * (self.params.mb * 2**20))
        return Signal(action=1, extras={"pid": os.getpid()})


class Quits(Strategy):
    """Ends the process, as it believes."""

    def on_candle(self, context: Context) -> Signal:
        sys.exit("done for today")


class Garbage(Strategy):
    """Answers with something that is no signal."""

    def on_candle(self, context: Context) -> Any:
        return "buy, buy, buy"


class Overconfident(Strategy):
    """Answers with arrays of the right shape and impossible content."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return Signals(np.ones(len(bars), np.int8), np.full(len(bars), np.nan))


class Vandal(Strategy):
    """Writes into the window that its neighbours share."""

    def on_candle(self, context: Context) -> Signal:
        context.bars.close[:] = 0.0
        return Signal(action=1)


class Flaky(Strategy):
    """Fails its first attempts at every candle, then succeeds."""

    class Params(Strategy.Params):
        """Where it keeps count, because every attempt may run in another process."""

        folder: str
        failures: int

    params: Params

    def on_candle(self, context: Context) -> Signal:
        marks = Path(self.params.folder) / str(context.bars.open_time[-1])
        with marks.open("a+") as file:
            file.write("x")
        tried = len(marks.read_text())
        if tried <= self.params.failures:
            raise ConnectionError(f"attempt {tried} failed")
        return Signal(action=1, strength=1.0, extras={"tried": tried, "digest": digest(context.bars)})
