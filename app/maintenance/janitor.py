"""The janitor: rows of nodes and producers that never said goodbye, and the queues of such nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.maintenance.base import Begin, Report
from app.storage.producers import forget_silent_producers
from app.storage.watch import forget_silent

#: Multiple of the time after which one counts as gone, after which nobody wants to see it any more.
SILENCES = 10


@dataclass
class Janitor:
    """Removes nodes and producers that have been silent for long."""

    begin: Begin
    forget_queue: Callable[[str], None]
    silence: timedelta
    every_s: float
    name: str = "janitor"
    _left: list[str] = field(default_factory=list)
    """Nodes whose queue is still to be removed."""

    def run_once(self, now: datetime) -> Report:
        """Remove them, and their queues."""
        seen_before = now - SILENCES * self.silence
        with self.begin() as connection:
            gone = forget_silent(connection, seen_before)
            producers = forget_silent_producers(connection, seen_before)
        self._left += gone
        while self._left:
            self.forget_queue(self._left[-1])
            self._left.pop()
        return Report.of(nodes=len(gone), producers=len(producers))
