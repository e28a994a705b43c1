"""Admission: when a feed must wait for the queues. Pure; what is held meanwhile is `app.producer.hold`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.queues import QueueLimit, Waiting, why_full

#: A feed that waits is read a batch at a time, as room appears: breaks shorter than this do not end its waiting.
SHORT_BREAK = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many chunks a producer holds."""

    held: int
    """Most in memory; what is over is left to maintenance."""
    ahead: int
    """From so many on a feed that can wait is told to."""


def why_wait(
    held: Mapping[str, int], ahead: int, limits: Mapping[str, QueueLimit], waiting: Mapping[str, Waiting]
) -> str | None:
    """Say why a feed that can wait must, for people; None when it need not.

    Args:
        held: chunks that wait for room, by queue.
        ahead: from so many on it must.
        limits: of the queues.
        waiting: what was in them at the last look.
    """
    count = sum(held.values())
    if count < ahead:
        return None
    known = ((queue, why_full(limits[queue], waiting[queue])) for queue in held if queue in waiting)
    full = ", ".join(f"{queue} is {why}" for queue, why in known if why)
    return f"{count:,} chunks are held; {full}" if full else f"{count:,} chunks are held"


class HeldBack:
    """Since when something has been held back, short breaks aside, and why."""

    def __init__(self) -> None:
        self.since: datetime | None = None
        """None when it is not."""
        self.reason: str | None = None
        self._last_at: datetime | None = None

    def note(self, reason: str | None, now: datetime) -> bool:
        """Note why it is held back now, or that it is not; tell whether that is a change worth saying."""
        before = self.since
        if reason is not None:
            self.since, self.reason, self._last_at = self.since or now, reason, now
        elif self._last_at is not None and now - self._last_at > SHORT_BREAK:
            self.since = self.reason = self._last_at = None
        return (before is None) != (self.since is None)
