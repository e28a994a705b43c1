"""Answers that are dear to find, and that many ask for at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """An answer that is asked for anew when it has become old, by one thread at a time; the others wait for it.

    Args:
        ask: finds the answer; what it raises goes to whoever asked.
        for_s: seconds that an answer holds.
    """

    def __init__(self, ask: Callable[[], Answer], for_s: float) -> None:
        self._ask = ask
        self._for_s = for_s
        self._lock = Lock()
        self._found: tuple[Answer, float] | None = None

    def get(self) -> Answer:
        """Return the answer."""
        with self._lock:
            if self._found is None or time.monotonic() - self._found[1] >= self._for_s:
                self._found = self._ask(), time.monotonic()
            return self._found[0]
