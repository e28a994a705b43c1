"""The producer service: feed in, dispatches and chunks out, until the feed ends or a stop is asked for.

A batch is written, what fits goes to its queues, the rest is held, and the next batch is taken: a full queue holds up
no other. When too much is held a feed that can wait is told to; what another feed brings beyond the bound is left to
maintenance, which finds it in the ledger. Postgres being away makes everything wait, Redis only what needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event

import structlog

from app.broker import Publisher
from app.domain.candles import Candle
from app.domain.queues import QueueLimit
from app.errors import FeedError
from app.feeds.base import Feed
from app.producer.admission import Bounds, HeldBack
from app.producer.dispatch import Dispatcher, Written
from app.producer.outgoing import Outgoing
from app.producer.presence import Presence, name_of_process
from app.producer.reading import Reader, in_batches
from app.producer.trying import Trial
from app.storage.producers import ProducerBeat

log = structlog.get_logger()

#: Seconds between two looks at a full queue: a hundredth of what a person notices, and no load on Redis.
LOOK_EVERY_S = 0.005
#: Seconds between two looks at whether a stop is asked for, while there is nothing to do.
IDLE_S = 0.2

#: Most candles written together while strategies are new.
FIRST_CANDLES = 4

#: Seconds that a producer which was asked to stop waits for room for what it has committed; maintenance sends the rest.
STOP_GRACE_S = 3.0


@dataclass
class ProducerReport:
    """What the producer has done so far."""

    candles: int = 0
    """New candles and corrections written."""
    repeated: int = 0
    """Candles that were known already, with the same values: nothing was dispatched."""
    dispatches: int = 0
    chunks: int = 0
    jobs: int = 0
    expired: int = 0
    """Chunks that were out of date before there was room for them."""
    let_go: int = 0
    """Chunks that were left to maintenance: too many were held, or the producer was asked to stop."""


class Producer:
    """Runs one feed to its end.

    Args:
        feed: where candles come from.
        dispatcher: writes them.
        publisher: sends their chunks.
        presence: shows what it does.
        limits: of the queues.
        bounds: how many chunks it holds.
        batch_candles: most candles written together.
    """

    def __init__(
        self,
        feed: Feed,
        dispatcher: Dispatcher,
        publisher: Publisher,
        presence: Presence,
        *,
        limits: Mapping[str, QueueLimit],
        bounds: Bounds,
        batch_candles: int,
    ) -> None:
        self._feed = feed
        self._dispatcher = dispatcher
        self._presence = presence
        self._bounds = bounds
        self._batch_candles = batch_candles
        self._writing = Trial("write candles")
        self._outgoing = Outgoing(publisher, dispatcher.mark_published, limits)
        self._held_back, self._shortening = HeldBack(), HeldBack()
        self._started_at = datetime.now(UTC)
        self.report = ProducerReport()

    def run(self, stop: Event, on_progress: Callable[[ProducerReport], None] = lambda _: None) -> ProducerReport:
        """Dispatch every candle of the feed; return when it ends, or after the batch in hand once `stop` is set.

        Raises:
            FeedError: the feed as a whole cannot be read.
        """
        self._started_at = datetime.now(UTC)
        # candles of a feed on the clock must not wait for the next ones
        batches = in_batches(self._feed.batches(), self._most_candles, join=self._feed.can_wait)
        with self._presence.shown(self._describe), Reader(batches) as reader:
            try:
                self._follow(reader, stop, on_progress)
            except FeedError:
                self._finish(stop)
                raise
            self._finish(stop)
        return self.report

    def _most_candles(self) -> int:
        # while strategies are new their jobs travel one by one: the sooner the first ones have ended the better
        return FIRST_CANDLES if self._dispatcher.is_learning else self._batch_candles

    def _follow(self, reader: Reader, stop: Event, on_progress: Callable[[ProducerReport], None]) -> None:
        """Take batch after batch, and publish what fits in between."""
        while not (stop.is_set() or reader.is_over):
            candles = self._take(reader, stop)
            if candles:
                self._write(candles, stop)
            self._push()
            if candles:
                on_progress(self.report)

    def _take(self, reader: Reader, stop: Event) -> list[Candle] | None:
        """Take the next batch, if there is one and the queues allow it; wait a little for either."""
        reason = self._outgoing.why_wait(self._bounds.ahead) if self._feed.can_wait else None
        if self._held_back.note(reason, datetime.now(UTC)):
            log.info("feed held back" if reason else "feed goes on", reason=reason)
        if reason:
            stop.wait(LOOK_EVERY_S)
            return None
        return reader.take(IDLE_S if self._outgoing.is_done else LOOK_EVERY_S)

    def _write(self, candles: list[Candle], stop: Event) -> None:
        self._outgoing.look()
        written = self._writing.insist(lambda: self._dispatcher.write(candles), stop)
        if written is not None:
            self._outgoing.put(written)
            self._count(candles, written)

    def _push(self) -> None:
        """Publish what fits, and hold no more than is allowed; a feed that can wait was told to before that."""
        self._outgoing.push()
        gone = 0 if self._feed.can_wait else self._outgoing.shorten(self._bounds.held)
        if self._shortening.note("too many" if gone else None, datetime.now(UTC)):
            said = "chunks are left to maintenance" if gone else "chunks were left to maintenance"
            log.warning(said, so_far=self._outgoing.let_go)
        self.report.expired, self.report.let_go = self._outgoing.expired, self._outgoing.let_go

    def _finish(self, stop: Event) -> None:
        """Publish what is held: all of it, or once a stop is asked for what finds room within the grace."""
        ends_at: float | None = None
        while not self._outgoing.is_done:
            self._push()
            self._held_back.note(None, datetime.now(UTC))
            if stop.is_set():
                ends_at = ends_at or time.monotonic() + STOP_GRACE_S
                if time.monotonic() >= ends_at:
                    self.report.let_go += sum(self._outgoing.describe()[0].values())
                    return
            time.sleep(0.0 if self._outgoing.is_done else LOOK_EVERY_S)

    def _count(self, candles: list[Candle], written: Written) -> None:
        report = self.report
        report.candles += written.candles
        report.repeated += len(candles) - written.candles
        report.dispatches += len(written.dispatch_ids)
        report.chunks += len(written.envelopes)
        report.jobs += sum(len(envelope.chunk.jobs) for envelope in written.envelopes)

    def _describe(self) -> ProducerBeat:
        held, held_ids = self._outgoing.describe()
        throttled = self._dispatcher.throttled()
        return ProducerBeat(
            producer=name_of_process(),
            feed=self._feed.source,
            started_at=self._started_at,
            candles=self.report.candles,
            jobs=self.report.jobs,
            held=held,
            held_ids=held_ids,
            expired=self._outgoing.expired,
            let_go=self._outgoing.let_go,
            waiting_since=self._held_back.since,
            reason=self._held_back.reason,
            notes={"throttled": throttled} if throttled else {},
        )
