"""When a queue is full: too many messages, or the oldest of them waits for too long. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """Up to where one queue is filled."""

    messages: int
    """Most messages waiting."""
    age_s: float | None = None
    """Most seconds since the dispatch of the oldest waiting message; None is any."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in one queue, not counting what workers hold."""

    depth: int
    """Messages."""
    oldest_s: float | None = None
    """Seconds since the dispatch of the oldest; None when there is none, or it was not asked for or cannot be read."""


def room(limit: QueueLimit, waiting: Waiting) -> int:
    """Return how many messages may be added to a queue, 0 or more."""
    return 0 if _is_late(limit, waiting) else max(0, limit.messages - waiting.depth)


def rooms(limits: Mapping[str, QueueLimit], waiting: Mapping[str, Waiting]) -> dict[str, int]:
    """Return how many messages may be added to each queue; one of which nothing is known gets none."""
    return {queue: room(limits[queue], found) for queue, found in waiting.items()}


def why_full(limit: QueueLimit, waiting: Waiting) -> str | None:
    """Say why a queue takes no more, for people; None when it does."""
    if waiting.depth >= limit.messages:
        return f"full: {waiting.depth} of {limit.messages}"
    if _is_late(limit, waiting):
        return f"late: its oldest message was dispatched {waiting.oldest_s:,.1f} s ago, the limit is {limit.age_s:g} s"
    return None


def aged_queues(limits: Mapping[str, QueueLimit]) -> tuple[str, ...]:
    """Return the queues whose oldest message has to be looked at."""
    return tuple(queue for queue, limit in limits.items() if limit.age_s is not None)


def _is_late(limit: QueueLimit, waiting: Waiting) -> bool:
    return limit.age_s is not None and waiting.oldest_s is not None and waiting.oldest_s > limit.age_s
