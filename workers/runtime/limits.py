"""Limits of what a slot does, by interval timer: a job's soft limit, one wait for Postgres. The hard limit is Celery's.

C code that holds the GIL does not notice the timer, which is why the hard limit stays.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from app.errors import JobTimeoutError


class Clock:
    """The interval timer of a slot's main thread, and what it is to interrupt.

    Jobs of microseconds follow each other, and setting a timer costs as much as some of them take. So a timer that
    fires before its time is set again for what is left, and one that is set already serves the next job as well.
    """

    def __init__(self) -> None:
        self._due_at: float | None = None
        self._fires_at = math.inf

    @contextmanager
    def running(self) -> Iterator[None]:
        """Surround jobs that follow each other; each calls `begin` and `end`."""
        try:
            yield
        finally:
            self._due_at, self._fires_at = None, math.inf
            signal.setitimer(signal.ITIMER_REAL, 0)

    def begin(self, timeout_ms: float) -> float:
        """Interrupt with JobTimeoutError what runs in so many milliseconds of wall clock; return the time now."""
        now = time.perf_counter()
        self._due_at = due_at = now + timeout_ms / 1000
        if due_at < self._fires_at:
            self._fires_at = due_at
            signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1000)
        return now

    def end(self) -> None:
        """Interrupt nothing any more."""
        self._due_at = None

    @contextmanager
    def bounded(self, bound_s: float) -> Iterator[None]:
        """Interrupt the body after so many seconds, and again and again: a driver that tidies up waits once more.

        Raises:
            JobTimeoutError: the body took longer.
        """
        self._due_at = -math.inf
        signal.setitimer(signal.ITIMER_REAL, bound_s, bound_s)
        try:
            yield
        finally:
            self._due_at, self._fires_at = None, math.inf
            signal.setitimer(signal.ITIMER_REAL, 0)

    def install(self) -> None:
        """Take over SIGALRM; once per slot, before the first job."""
        signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        if self._due_at is None:  # between two jobs: the next one sets it
            self._fires_at = math.inf
            return
        left_s = self._due_at - time.perf_counter()
        if left_s <= 0:
            self._fires_at = math.inf
            raise JobTimeoutError
        self._fires_at = self._due_at
        signal.setitimer(signal.ITIMER_REAL, left_s)


#: The one of this process: a process has one timer.
clock = Clock()
