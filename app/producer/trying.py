"""Trying again what needs a server that is away, without standing still and without a log line a try."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

import structlog

from app.errors import TransientError

log = structlog.get_logger()
T = TypeVar("T")

#: Longest wait after the first failure, seconds; doubles with every further one.
BACKOFF_S = 0.2
#: Longest wait between two tries when Postgres or Redis is away, seconds.
BACKOFF_CAP_S = 5.0


class Trial:
    """One kind of work that fails while a server is away. Says once that it is waited for, and once that it came.

    Args:
        what: the work, for the log.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0
        self._since = 0.0
        self._next_at = 0.0
        self.reason: str | None = None
        """Why it did not work the last time; None when it did."""

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Do it, unless it failed a moment ago; None when it was not done."""
        if self.left_s() > 0:
            return None
        try:
            done = action()
        except TransientError as error:
            self._note(str(error))
            return None
        self._note_success()
        return done

    def insist(self, action: Callable[[], T], stop: Event) -> T | None:
        """Do it again until it works; None when asked to stop while the server is away."""
        while (done := self.attempt(action)) is None and not stop.is_set():
            stop.wait(self.left_s())
        return done

    def left_s(self) -> float:
        """Return the seconds until it is tried again; 0 or less when it is time."""
        return self._next_at - time.monotonic()

    def _note(self, reason: str) -> None:
        now = time.monotonic()
        if self.reason is None:
            self._since = now
            log.warning("waiting", to=self._what, reason=reason)
        self.reason = reason
        longest = min(BACKOFF_CAP_S, BACKOFF_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._next_at = now + random.uniform(0.0, longest)

    def _note_success(self) -> None:
        if self.reason is not None:
            log.info("waited", to=self._what, seconds=round(time.monotonic() - self._since, 1))
        self.reason, self._failures = None, 0
