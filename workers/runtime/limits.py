"""Limits of what a slot does, by interval timer: a job's soft limit, one wait for Postgres. The hard limit is Celery's.

C code that holds the GIL does not notice the timer, which is why the hard limit stays.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from app.errors import JobTimeoutError


@contextmanager
def soft_limit(timeout_ms: float) -> Iterator[None]:
    """Interrupt the body after so many milliseconds of wall clock. Main thread of a slot only.

    Raises:
        JobTimeoutError: the body took longer.
    """
    signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def bounded(bound_s: float) -> Iterator[None]:
    """Interrupt the body after so many seconds, and again and again: a driver that tidies up waits once more.

    Raises:
        JobTimeoutError: the body took longer.
    """
    signal.setitimer(signal.ITIMER_REAL, bound_s, bound_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def install() -> None:
    """Take over SIGALRM; once per slot, before the first job."""
    signal.signal(signal.SIGALRM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise JobTimeoutError
