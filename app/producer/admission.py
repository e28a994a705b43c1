"""Admission: how many chunks may be published now, so that no queue grows past its limit. Nothing is dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from threading import Event

from app.broker import Envelope

#: Seconds between two looks at a full queue: a hundredth of what a person notices, and no load on Redis.
LOOK_EVERY_S = 0.005


def fitting(envelopes: Sequence[Envelope], depths: Mapping[str, int], limit: int) -> int:
    """Return how many envelopes, from the first on, fit without any queue passing its limit.

    Args:
        envelopes: in the order in which they will be published.
        depths: messages waiting now, by queue.
        limit: most messages waiting in one queue.
    """
    waiting = Counter(depths)
    for place, envelope in enumerate(envelopes):
        queue = envelope.chunk.priority.value
        if waiting[queue] >= limit:
            return place
        waiting[queue] += 1
    return len(envelopes)


class Admission:
    """Lets chunks through as the workers make room."""

    def __init__(self, depths: Callable[[], Mapping[str, int]], limit: int) -> None:
        self._depths = depths
        self._limit = limit
        self.waited_s = 0.0
        """Seconds spent waiting for room, up to now."""

    def await_room(self, envelopes: Sequence[Envelope], stop: Event) -> int:
        """Wait until at least one envelope fits; return how many do, or 0 when asked to stop.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        while not stop.is_set():
            count = fitting(envelopes, self._depths(), self._limit)
            if count:
                return count
            stop.wait(LOOK_EVERY_S)
            self.waited_s += LOOK_EVERY_S
        return 0
