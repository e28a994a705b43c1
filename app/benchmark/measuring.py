"""What a contender is, what one measurement of it says, and how its end is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from app.benchmark.market import Close
from app.errors import CandlefleetError
from app.processes import Children

#: Seconds without any progress after which a measurement is given up.
PATIENCE_S = 60.0
#: Seconds between two looks whether everything has landed. The figures come from Postgres' stamps, not from here.
LOOK_EVERY_S = 0.02


class BenchmarkError(CandlefleetError):
    """A measurement could not be carried to its end."""


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement."""

    jobs: int
    elapsed_s: float
    """From the start of producing to the last row, by its own stamp in Postgres."""
    latencies_ms: tuple[float, ...] = ()
    """Of each candle: from its dispatch to its decision or last row, by Postgres' stamps."""

    @property
    def jobs_per_s(self) -> float:
        """Landed outcomes per second."""
        return self.jobs / self.elapsed_s


class Contender(Protocol):
    """A way to get jobs done. It is warm and waits between its measurements."""

    @property
    def name(self) -> str:
        """How the report calls it."""
        ...

    @property
    def most_symbols(self) -> int:
        """Symbols it is given at most: a slow contender would take minutes to warm up on many."""
        ...

    def run(self, closes: Sequence[Close]) -> Run:
        """Have every strategy of these candles' workload answer, as fast as it can.

        Raises:
            BenchmarkError: it did not come to its end.
        """
        ...


class Watcher:
    """Waits for a count in Postgres, and gives up when a process has ended or nothing moves.

    Args:
        children: the processes that do the work.
        stop: gives up at once.
    """

    def __init__(self, children: Children, stop: Event) -> None:
        self._children = children
        self._stop = stop

    def await_count(self, count: Callable[[], int], wanted: int, look_every_s: float = LOOK_EVERY_S) -> None:
        """Wait until a count is reached.

        Raises:
            BenchmarkError: stopped, a process ended, or nothing moved for too long.
        """
        last, since = -1, time.monotonic()
        while (found := count()) < wanted:
            if found > last:
                last, since = found, time.monotonic()
            self._check(since, f"{found} of {wanted}")
            self._stop.wait(look_every_s)

    def pause(self, seconds: float) -> None:
        """Wait so long, or until stopped."""
        if seconds > 0:
            self._stop.wait(seconds)

    def _check(self, since: float, where: str) -> None:
        if self._stop.is_set():
            raise BenchmarkError("stopped before the end")
        for name in self._children.dead():
            raise BenchmarkError(f"{name} ended; the end of its log:\n{self._children.tail(name)}")
        if time.monotonic() > since + PATIENCE_S:
            raise BenchmarkError(f"{where} after {PATIENCE_S:g} s without progress")
