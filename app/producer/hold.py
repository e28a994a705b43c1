"""The hold: chunks that are committed and wait for room in their queues. Pure: it neither looks nor sends.

First in, first out within a queue; high before normal before low wherever one must stand back.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice

from app.broker import QUEUES, Envelope, pack
from app.domain.costs import Room


class Hold:
    """Chunks of one producer, by queue. A dispatch is published when its last chunk has left and none was lost."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Envelope]] = {queue: deque() for queue in QUEUES}
        self._left: Counter[int] = Counter()
        self._torn: set[int] = set()

    def __len__(self) -> int:
        """Return how many chunks it holds."""
        return sum(map(len, self._waiting.values()))

    @property
    def counts(self) -> dict[str, int]:
        """Chunks by queue; those with none are absent."""
        return {queue: len(waiting) for queue, waiting in self._waiting.items() if waiting}

    @property
    def dispatch_ids(self) -> tuple[int, ...]:
        """Dispatches with chunks in it."""
        return tuple(self._left)

    def put(self, envelopes: Iterable[Envelope]) -> None:
        """Add chunks behind what waits in their queues."""
        for each in envelopes:
            self._waiting[each.chunk.priority.value].append(each)
            self._left[each.chunk.dispatch_id] += 1

    def fitting(self, rooms: Mapping[str, int], room: Room) -> list[list[Envelope]]:
        """Return the messages that can go now, urgent ones first: as many as each queue has room for.

        Their chunks stay in it until `take_out`.

        Args:
            rooms: messages that may be added, by queue.
            room: how much a message may hold.
        """
        lanes = (islice(pack(self._waiting[queue], room), rooms.get(queue, 0)) for queue in QUEUES)
        return list(chain.from_iterable(lanes))

    def take_out(self, sent: Sequence[Sequence[Envelope]]) -> list[int]:
        """Remove messages that `fitting` returned and that are on their queues.

        Returns:
            The dispatches of which every chunk is now on its queue.
        """
        chunks = [each.chunk for each in chain.from_iterable(sent)]
        for chunk in chunks:
            self._waiting[chunk.priority.value].popleft()
        return self._settle(chunk.dispatch_id for chunk in chunks)

    def drop_expired(self, now: datetime) -> int:
        """Remove chunks that are out of date: nobody would execute them. Return how many.

        The oldest are in front and expire first; maintenance records the end of their jobs from the ledger.
        """
        dropped = [each for waiting in self._waiting.values() for each in _take_expired(waiting, now)]
        return self._lose(dropped)

    def let_go(self, most: int) -> int:
        """Remove what is more than `most`: low before normal before high, the newest first. Return how many."""
        gone: list[Envelope] = []
        for queue in reversed(QUEUES):
            waiting, over = self._waiting[queue], len(self) - most
            gone.extend(waiting.pop() for _ in range(min(over, len(waiting))))
        return self._lose(gone)

    def _lose(self, envelopes: Sequence[Envelope]) -> int:
        ids = [each.chunk.dispatch_id for each in envelopes]
        self._torn.update(ids)
        self._settle(ids)
        return len(ids)

    def _settle(self, dispatch_ids: Iterable[int]) -> list[int]:
        """Count chunks as gone; return the dispatches that are over and of which none was lost."""
        over = []
        for number in dispatch_ids:
            self._left[number] -= 1
            if not self._left[number]:
                del self._left[number]
                over.append(number)
        torn = self._torn.intersection(over)
        self._torn -= torn
        return [number for number in over if number not in torn]


def _take_expired(waiting: deque[Envelope], now: datetime) -> list[Envelope]:
    taken = []
    while waiting and waiting[0].chunk.expires_at <= now:
        taken.append(waiting.popleft())
    return taken
