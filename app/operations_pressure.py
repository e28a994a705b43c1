"""Backpressure as an operator sees it: what waits, up to where a queue is filled, and what producers hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.domain.queues import QueueLimit, Waiting, why_full


@dataclass(frozen=True, slots=True)
class Pressure:
    """How one queue of jobs stands."""

    queue: str
    waiting: int | None
    """Messages in it, not counting those that workers hold; None when the broker does not answer."""
    limit: int
    """Messages from which on it takes no more."""
    oldest_s: float | None
    """Seconds since the dispatch of the message that has waited longest; None when there is none."""
    oldest_limit_s: float | None
    """Seconds from which on it takes no more; None is any."""
    held: int
    """Chunks that living producers hold for it."""
    full: str | None
    """Why it takes no more, for people; None when it does."""


def describe_queues(
    limits: Mapping[str, QueueLimit], waiting: Mapping[str, Waiting], producers: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Describe every queue of jobs, the most urgent first.

    Args:
        limits: of the queues.
        waiting: what is in them; empty when the broker does not answer.
        producers: as `load_producers` returns them.
    """
    held: Counter[str] = Counter()
    for each in producers:
        held.update(each["held"] if each["is_alive"] else {})
    return [asdict(_describe(queue, limit, waiting.get(queue), held[queue])) for queue, limit in limits.items()]


def describe_waiting(producers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each living producer that holds back its feed, since when and why."""
    return [
        f"{each['producer']} has held back its feed since {each['waiting_since']:%H:%M:%S} UTC: {each['reason']}"
        for each in producers
        if each["is_alive"] and each["waiting_since"] is not None
    ]


def _describe(queue: str, limit: QueueLimit, waiting: Waiting | None, held: int) -> Pressure:
    return Pressure(
        queue=queue,
        waiting=None if waiting is None else waiting.depth,
        limit=limit.messages,
        oldest_s=None if waiting is None else waiting.oldest_s,
        oldest_limit_s=limit.age_s,
        held=held,
        full=None if waiting is None else why_full(limit, waiting),
    )


def describe_throttled(producers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say of each strategy that a living producer throttles, why."""
    found = {
        name: reason
        for each in producers
        if each["is_alive"]
        for name, reason in each["notes"].get("throttled", {}).items()
    }
    return [f"{name}: {reason}" for name, reason in sorted(found.items())]
