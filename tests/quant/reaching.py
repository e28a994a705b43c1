"""Strategies that reach for what is outside while they are evaluated, or that end their process; and ones that may."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import numpy as np

from app.strategies.sdk import Bars, Context, Lines, Signal, Signals, Strategy

HERE = Path(__file__)


def flat() -> Signal:
    return Signal(action=0, strength=0.0)


class ReadsAFile(Strategy):
    def on_candle(self, context: Context) -> Signal:
        HERE.with_suffix(".txt").open()
        return flat()


class WritesAFile(Strategy):
    """Writes beside its own code, and goes on when it is refused."""

    def on_candle(self, context: Context) -> Signal:
        with suppress(BaseException):
            HERE.with_name("written.py").write_text("")
        return flat()


class ListsAFolder(Strategy):
    def on_candle(self, context: Context) -> Signal:
        list(HERE.parent.iterdir())
        return flat()


class StartsAProcess(Strategy):
    def on_candle(self, context: Context) -> Signal:
        subprocess.run([sys.executable, "--version"], check=False)
        return flat()


class Forks(Strategy):
    def on_candle(self, context: Context) -> Signal:
        if os.fork() == 0:
            os._exit(0)
        return flat()


class ReadsItsFileAtImport(Strategy):
    """Right: what it needs was read before it was asked. Imports and warns late, which reads code and nothing else."""

    text = HERE.read_text()

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        import_module("colorsys")
        warnings.warn("a warning shows a line of code", stacklevel=1)
        strength = np.full(len(bars), 0.5 if self.text else 0.0)
        return Signals(np.sign(bars.close - bars.open).astype(np.int8), strength)


class ReadsTheDate(Strategy):
    """Trades on some weekdays of the machine's calendar, imported by name."""

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1 if datetime.now(UTC).weekday() < 3 else -1, strength=0.5)


class DependsOnHashes(Strategy):
    """Takes the first of a set of texts, which is another in every process."""

    def on_candle(self, context: Context) -> Signal:
        first = next(iter({"one", "two", "three", "four", "five", "six", "seven", "eight"}))
        return Signal(action=1, strength=len(first) / 10)


class UsesGlobalRandomness(Strategy):
    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, strength=float(np.random.rand()))


class Segfaults(Strategy):
    def on_candle(self, context: Context) -> Signal:
        ctypes.string_at(0)
        return flat()


class Exits(Strategy):
    def on_candle(self, context: Context) -> Signal:
        os._exit(0)


class HangsInC(Strategy):
    """Waits in C with the interpreter lock held: no timer of Python's rings."""

    def on_candle(self, context: Context) -> Signal:
        libc = ctypes.PyDLL(None)
        mutex = ctypes.create_string_buffer(256)
        for _ in range(2):
            libc.pthread_mutex_lock(mutex)
        return flat()


class SleepsTooLong(Strategy):
    def on_candle(self, context: Context) -> Signal:
        time.sleep(60)
        return flat()


class CannotBeBuilt(Strategy):
    def __init__(self, params: Strategy.Params | None = None, *, name: str | None = None) -> None:
        raise RuntimeError("not today")

    def on_candle(self, context: Context) -> Signal:
        return flat()
