"""The lookout: what waits in the queues and what the nodes hold, in that order, so that nothing falls in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from app.broker import Publisher
from app.maintenance.base import Begin
from app.maintenance.judging import Head, Held, Look, TaskId
from app.storage.unfinished import load_created
from app.storage.watch import WatchedNode, load_living

#: Time that a node's list of what it holds may be older than the moment it is written at.
SNAPSHOT_LAG = timedelta(seconds=0.5)

#: Looks at the queues that are kept: the nodes' next signs of life decide which one counts.
LOOKS_KEPT = 64


class Lookout:
    """Looks at the queues round by round, and finds the look that the nodes have answered since.

    Args:
        begin: opens a transaction.
        publisher: to the queues.
        silence: time without a sign of life after which a node counts as gone.
    """

    def __init__(self, begin: Begin, publisher: Publisher, silence: timedelta) -> None:
        self._begin = begin
        self._publisher = publisher
        self._silence = silence
        self._looks: deque[Look] = deque(maxlen=LOOKS_KEPT)
        self._first_at: datetime | None = None

    def look(self, now: datetime) -> tuple[Look, Held] | None:
        """Look at the queues and the nodes.

        Returns:
            A look at the queues, and what living nodes have said since then that they hold. None while that cannot
            be told: when this process has just taken over, or Postgres has just come back, whoever lives must first
            have had the time to say so.

        Raises:
            StorageUnavailableError, BrokerUnavailableError: one of them is away.
        """
        self._first_at = self._first_at or now
        self._looks.append(self._look_at_queues(now))
        if now - self._first_at < self._silence:
            return None
        with self._begin() as connection:
            living = load_living(connection, now - self._silence)
        settled = settled_look(self._looks, living, now)
        if settled is None:
            return None
        return settled, Held(task_id for node in living for task_id in node.held)

    def _look_at_queues(self, now: datetime) -> Look:
        started = time.monotonic()
        oldest = self._publisher.oldest()
        at = now + timedelta(seconds=time.monotonic() - started)
        ids = {queue: TaskId.parse(task_id) for queue, task_id in oldest.items() if task_id is not None}
        with self._begin() as connection:
            created = load_created(connection, [each.dispatch_id for each in ids.values() if each])
        return Look(at, {queue: _head(ids[queue], created) if queue in ids else None for queue in oldest})


def settled_look(looks: Sequence[Look], living: Sequence[WatchedNode], now: datetime) -> Look | None:
    """Return the newest look since which every living node has said what it holds. Pure.

    Args:
        looks: oldest first.
        living: nodes seen lately.
        now: current moment.
    """
    until = min((node.seen_at - SNAPSHOT_LAG for node in living), default=now)
    return next((look for look in reversed(looks) if look.at <= until), None)


def _head(task_id: TaskId | None, created: Mapping[int, datetime]) -> Head:
    return Head(None, None) if task_id is None else Head(task_id.dispatch_id, created.get(task_id.dispatch_id))
