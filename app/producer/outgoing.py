"""Outgoing: what is committed and not yet on its queue goes out as room appears, urgent first, and is then marked.

While Redis is away there is no room anywhere, and nothing else stands still.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from threading import Lock

from app.broker import Publisher
from app.domain.queues import QueueLimit, Waiting, aged_queues, rooms
from app.producer.admission import why_wait
from app.producer.dispatch import Written
from app.producer.hold import Hold
from app.producer.trying import Trial

#: Seconds between two notes of what is published while more is held: a transaction each, and nobody reads them sooner.
MARK_EVERY_S = 0.1


#: Seconds for which a look at the queues holds, as long as this producer sends nothing: others may.
FRESH_S = 0.01


class Outgoing:
    """The chunks of one producer on their way. Used by one thread, described by another.

    Args:
        publisher: to the queues.
        mark_published: notes in Postgres that every chunk of these dispatches is on its queue.
        limits: of the queues.
    """

    def __init__(
        self, publisher: Publisher, mark_published: Callable[[Sequence[int]], None], limits: Mapping[str, QueueLimit]
    ) -> None:
        self._publisher = publisher
        self._mark_published = mark_published
        self._limits = limits
        self._aged = aged_queues(limits)
        self._hold = Hold()
        self._room = publisher.room
        self._waiting: Mapping[str, Waiting] = {}
        self._published: list[int] = []
        self._marked_at = 0.0
        self._looked_at = -math.inf
        self._publishing = Trial("publish chunks")
        self._marking = Trial("mark published")
        self._lock = Lock()
        self.expired = 0
        """Chunks that were out of date before there was room; maintenance ends their jobs."""
        self.let_go = 0
        """Chunks that were left to maintenance because too many were held."""

    @property
    def is_done(self) -> bool:
        """Whether everything is on its queue and noted as such."""
        return not self._hold and not self._published

    def put(self, written: Written) -> None:
        """Take over what was committed."""
        self._room = self._room._replace(slots=written.slots)
        sent = {each.chunk.dispatch_id for each in written.envelopes}
        with self._lock:
            self._hold.put(written.envelopes)
            # nobody is sent anything when all its strategies are left out
            self._published += [number for number in written.dispatch_ids if number not in sent]

    def look(self) -> None:
        """Look at the queues beforehand, so that what is put in next need not wait for it."""
        self._publishing.attempt(self._look)

    def push(self) -> None:
        """Publish what fits now."""
        with self._lock:
            self.expired += self._hold.drop_expired(datetime.now(UTC))
        if self._hold:
            self._publishing.attempt(self._publish)
        is_time = not self._hold or time.monotonic() - self._marked_at >= MARK_EVERY_S
        if self._published and is_time:
            self._marking.attempt(self._mark)

    def shorten(self, most: int) -> int:
        """Leave what is more than `most` chunks to maintenance, low first; return how many."""
        with self._lock:
            gone = self._hold.let_go(most)
        self.let_go += gone
        return gone

    def why_wait(self, ahead: int) -> str | None:
        """Say why a feed that can wait must; None when it need not.

        Args:
            ahead: chunks held from which on it must.
        """
        return self._publishing.reason or why_wait(self._hold.counts, ahead, self._limits, self._waiting)

    def describe(self) -> tuple[dict[str, int], tuple[int, ...]]:
        """Return the chunks held by queue, and every dispatch that is still to be published or marked."""
        with self._lock:
            return self._hold.counts, (*self._hold.dispatch_ids, *self._published)

    def _look(self) -> None:
        self._waiting = self._publisher.waiting(self._aged)
        self._looked_at = time.monotonic()

    def _publish(self) -> None:
        if time.monotonic() - self._looked_at > FRESH_S:
            self._look()
        self._looked_at = -math.inf  # once something is sent it is out of date
        fit = self._hold.fitting(rooms(self._limits, self._waiting), self._room)
        if fit:
            self._publisher.send(fit)
            with self._lock:
                self._published += self._hold.take_out(fit)

    def _mark(self) -> None:
        self._mark_published(self._published)
        self._marked_at = time.monotonic()
        with self._lock:
            self._published = []
