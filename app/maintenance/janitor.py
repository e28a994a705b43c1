"""The janitor: rows and queues of nodes that never said goodbye."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.maintenance.base import Begin, Report
from app.storage.watch import forget_silent

#: Multiple of the time after which a node counts as gone, after which nobody wants to see it any more.
SILENCES = 10


@dataclass
class Janitor:
    """Removes nodes that have been silent for long."""

    begin: Begin
    forget_queue: Callable[[str], None]
    silence: timedelta
    every_s: float
    name: str = "janitor"
    _left: list[str] = field(default_factory=list)
    """Nodes whose queue is still to be removed."""

    def run_once(self, now: datetime) -> Report:
        """Remove them, and their queues."""
        with self.begin() as connection:
            gone = forget_silent(connection, now - SILENCES * self.silence)
        self._left += gone
        while self._left:
            self.forget_queue(self._left[-1])
            self._left.pop()
        return Report.of(nodes=len(gone))
