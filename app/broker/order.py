"""In which order a consumer looks at its queues: by weight, so that none of them starves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class WeightedCycle:
    """Order in which a consumer looks at its queues: each has turns by weight, none starves but those of weight 0.

    kombu asks `consume` for the order before every blocking pop and tells `rotate` which queue answered.
    A queue with turns left comes before one without; within either group the urgent one is first. When a
    queue without turns answers, everything with turns was empty, so a new round begins. A queue of weight 0 never has
    any: it answers when nothing else waits.
    """

    def __init__(self, weights: dict[str, int], items: Iterable[str] | None = None) -> None:
        self._weights = weights
        self._items: list[str] = []
        self._turns: dict[str, int] = {}
        self.update(items or ())

    def update(self, items: Iterable[str]) -> None:
        """Take over the queues now consumed from."""
        urgency = list(self._weights)
        self._items = sorted(items, key=lambda queue: urgency.index(queue) if queue in urgency else len(urgency))
        self._refill()

    def consume(self, count: int) -> list[str]:
        """Return the queues in the order in which they should be asked."""
        with_turns = [queue for queue in self._items if self._turns[queue] > 0]
        without = [queue for queue in self._items if self._turns[queue] <= 0]
        return (with_turns + without)[:count]

    def rotate(self, last_used: str) -> str:
        """Note that a queue answered: it has one turn less."""
        if last_used in self._turns:
            if self._turns[last_used] <= 0:
                self._refill()
            self._turns[last_used] = max(0, self._turns[last_used] - 1)
            if not any(self._turns.values()):
                self._refill()
        return last_used

    def _refill(self) -> None:
        self._turns = {queue: self._weights.get(queue, 1) for queue in self._items}


@dataclass(frozen=True, slots=True)
class QueueOrder:
    """Makes the `WeightedCycle` of a channel; kombu calls it with nothing or with queues.

    A class and not a `functools.partial`: a node that is asked for its statistics sends its transport options as JSON.
    """

    weights: dict[str, int]

    def __call__(self, items: Iterable[str] | None = None) -> WeightedCycle:
        """Make an order."""
        return WeightedCycle(self.weights, items)

    def __json__(self) -> dict[str, int]:
        """Say what it is to kombu's JSON encoder."""
        return self.weights
