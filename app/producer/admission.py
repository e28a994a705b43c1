"""Admission: how many chunks may be published now, so that no queue grows past its limit. Nothing is dropped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from threading import Event

from app.broker import Envelope, pack
from app.domain.costs import Room

#: Seconds between two looks at a full queue: a hundredth of what a person notices, and no load on Redis.
LOOK_EVERY_S = 0.005


def fitting(envelopes: Sequence[Envelope], depths: Mapping[str, int], limit: int, room: Room) -> int:
    """Return how many envelopes, from the first on, fit without any queue passing its limit.

    Only whole messages are let through: room for one message is never spent on a part of what shares it.

    Args:
        envelopes: in the order in which they will be published.
        depths: messages waiting now, by queue.
        limit: most messages waiting in one queue.
        room: how much a message may hold.
    """
    waiting, count = Counter(depths), 0
    for message in pack(envelopes, room):
        queue = message[0].chunk.priority.value
        if waiting[queue] >= limit:
            break
        waiting[queue] += 1
        count += len(message)
    return count


class Admission:
    """Lets chunks through as the workers make room.

    Args:
        depths: tells how many messages wait in each queue.
        limit: most messages waiting in one queue.
        room: how much a message may hold.
        grace_s: seconds for which it goes on after it was asked to stop: what is committed should be published.
    """

    def __init__(self, depths: Callable[[], Mapping[str, int]], limit: int, room: Room, grace_s: float = 0.0) -> None:
        self._depths = depths
        self._limit = limit
        self._room = room
        self._grace_s = grace_s
        self._ends_at: float | None = None
        self.waited_s = 0.0
        """Seconds spent waiting for room, up to now."""

    def await_room(self, envelopes: Sequence[Envelope], stop: Event) -> int:
        """Wait until at least one envelope fits; return how many do, or 0 when asked to stop and the grace is over.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        while True:
            count = fitting(envelopes, self._depths(), self._limit, self._room)
            if count or self._is_over(stop):
                return count
            time.sleep(LOOK_EVERY_S)
            self.waited_s += LOOK_EVERY_S

    def _is_over(self, stop: Event) -> bool:
        if stop.is_set() and self._ends_at is None:
            self._ends_at = time.monotonic() + self._grace_s
        return self._ends_at is not None and time.monotonic() >= self._ends_at
