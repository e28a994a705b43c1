"""What a run costs while it lasts: the memory of the slots, looked at from outside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

import psutil

#: Seconds between two looks: each takes the kernel about a millisecond.
EVERY_S = 0.1


class MemoryWatch:
    """Notes the most memory that each of some processes had, counted in proportion where it is shared.

    Args:
        pids: of the processes.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self.most_bytes = dict.fromkeys(pids, 0)
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        for pid, most in self.most_bytes.items():
            with suppress(psutil.Error):
                self.most_bytes[pid] = max(most, _held(psutil.Process(pid)))


def _held(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))  # only Linux counts in proportion
