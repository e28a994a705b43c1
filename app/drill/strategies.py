"""Strategies that misbehave on purpose, for the drill and for tests. Nobody loads them unless a setting allows it.

Each behaves until `after` candles are in its window, so that a fault strikes while work is under way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from app.strategies.sdk import Context, Signal, Strategy

#: Most memory the leaking strategy may take before it is refused more, bytes.
LEAK_BOUND = 96 * 2**20
#: Bytes it takes at a time.
LEAK_STEP = 8 * 2**20
#: More than a pthread_mutex_t takes anywhere.
MUTEX_BYTES = 256


class Steady(Strategy):
    """Innocent: takes a while for every candle and answers with its direction."""

    class Params(Strategy.Params):
        """How long it takes."""

        pause_ms: Annotated[int, Field(ge=0)] = 10

    params: Params

    def on_candle(self, context: Context) -> Signal:
        """Answer after the pause."""
        time.sleep(self.params.pause_ms / 1000)
        rose = context.close > float(context.bars.open[context.index])
        return Signal(action=1 if rose else -1, strength=0.5)


class Misbehaving(Strategy):
    """Base: innocent at first."""

    class Params(Strategy.Params):
        """When it begins."""

        after: Annotated[int, Field(ge=0)] = 0
        """Candles of the window before it misbehaves."""

    params: Params

    def on_candle(self, context: Context) -> Signal:
        """Behave, then misbehave."""
        if context.index >= self.params.after:
            self.misbehave()
        return Signal(action=0)

    @abstractmethod
    def misbehave(self) -> None:
        """Do what it is for."""


class Segfaults(Misbehaving):
    """Reads memory that is not there."""

    def misbehave(self) -> None:
        """Read address zero."""
        ctypes.string_at(0)


class HangsInC(Misbehaving):
    """Hangs in C and keeps the interpreter lock: no Python code of the slot runs, no signal handler either."""

    def misbehave(self) -> None:
        """Lock a mutex twice; signals do not end that wait, unlike a sleep's."""
        libc = ctypes.PyDLL(None)
        mutex = ctypes.create_string_buffer(MUTEX_BYTES)  # zeros are an open mutex
        for _ in range(2):
            libc.pthread_mutex_lock(mutex)


class Exits(Misbehaving):
    """Ends the process without a word."""

    def misbehave(self) -> None:
        """End."""
        os._exit(3)


class IsKilled(Misbehaving):
    """Ends as the kernel's out-of-memory killer would end it."""

    def misbehave(self) -> None:
        """End."""
        os.kill(os.getpid(), signal.SIGKILL)


class Leaks(Misbehaving):
    """Takes memory and keeps it until it is refused more; the slot is limited meanwhile, the machine stays safe."""

    kept: ClassVar[list[bytearray]] = []

    def misbehave(self) -> None:
        """Take memory until the process may not have more.

        Raises:
            MemoryError: always.
        """
        with limited_memory(LEAK_BOUND):
            try:
                while True:
                    self.kept.append(bytearray(LEAK_STEP))
            finally:
                self.kept.clear()


class Raises(Misbehaving):
    """Raises."""

    def misbehave(self) -> None:
        """Raise.

        Raises:
            ZeroDivisionError: always.
        """
        raise ZeroDivisionError("a strategy divided by zero, on purpose")


class Sleeps(Misbehaving):
    """Sleeps past its soft limit, and swallows every exception it can."""

    def misbehave(self) -> None:
        """Sleep for an hour."""
        while True:
            with contextlib.suppress(Exception):
                time.sleep(3600)


@contextlib.contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Let this process have so many more bytes of address space, for the time of the body."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - a pseudo file of the kernel
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
