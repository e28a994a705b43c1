"""What one evaluation may take in the gate's process: time and memory; and the mark of what it is about.

The mark lies in memory that the parent sees, so that it can name the candle at which a child died or hung.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from app.domain.strategies import Limits
from app.errors import JobTimeoutError
from app.gate.guard import Guard
from app.strategies.bars import Bars
from app.strategies.verification.probe import Watch

#: Largest file a child may write, bytes: none.
NO_FILE = 0

_MIB = 1024 * 1024
_LAYOUT = struct.Struct("dqq")
_monotonic = time.monotonic


class Place(NamedTuple):
    """Which evaluation runs."""

    since_s: float
    """When it began, monotonic seconds; 0 for none yet or none now."""
    series: int
    opened_ms: int


class Mark:
    """The place of the evaluation that runs, in memory shared with the parent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LAYOUT.size)

    def write(self, place: Place) -> None:
        """Note what runs."""
        _LAYOUT.pack_into(self._memory, 0, *place)

    def read(self) -> Place:
        """Return what runs, or ran last."""
        return Place(*_LAYOUT.unpack_from(self._memory, 0))


class GateWatch(Watch):
    """Surrounds each evaluation with limits, the guard and the mark.

    Args:
        limits: of the strategy.
        window: candles of a worker's window; a series of more may take memory in proportion.
        names: symbol and timeframe of each series, in order.
        mark: to leave the place at.
        guard: installed.
    """

    def __init__(self, limits: Limits, window: int, names: list[tuple[str, str]], mark: Mark, guard: Guard) -> None:
        self._limits = limits
        self._window = window
        self._names = {name: place for place, name in enumerate(names)}
        self._mark = mark
        self._guard = guard
        self._hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        # kept open: opening costs ten times what reading does
        self._statm = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else None
        signal.signal(signal.SIGALRM, self._ring)

    @contextmanager
    def evaluating(self, bars: Bars) -> Iterator[None]:
        """Surround one evaluation."""
        series = self._names.get((bars.symbol, bars.timeframe.value), 0)
        self._mark.write(Place(_monotonic(), series, int(bars.open_time[-1])))
        self._limit_memory(len(bars))
        signal.setitimer(signal.ITIMER_REAL, self._limits.timeout_ms / 1000)
        try:
            with self._guard.up():
                yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, (self._hard, self._hard))
            self._mark.write(Place(0.0, series, int(bars.open_time[-1])))

    def _limit_memory(self, candles: int) -> None:
        if self._statm is not None:
            size = int(os.pread(self._statm, 64, 0).split()[0]) * resource.getpagesize()
            share = max(1.0, candles / self._window)
            resource.setrlimit(resource.RLIMIT_AS, (size + int(self._limits.memory_mb * _MIB * share), self._hard))

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        raise JobTimeoutError(f"none after {self._limits.timeout_ms} ms")


def confine() -> None:
    """Limit this process for good: no core dump, no byte written to any file."""
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (NO_FILE, NO_FILE))


def peak_mb() -> float:
    """Return the most resident memory this process has had, MiB."""
    scale = 1024 if sys.platform == "linux" else _MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
