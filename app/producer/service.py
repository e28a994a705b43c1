"""The producer service: feed in, dispatches and chunks out, until the feed ends or a stop is asked for.

The feed is never read past what is committed: a batch is written, then published as the queues have
room, then the next one is taken. Postgres or Redis being away makes it wait, with one log line a change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential

from app.broker import Envelope, Publisher
from app.domain.candles import Candle
from app.errors import TransientError
from app.feeds.base import Feed
from app.producer.admission import Admission
from app.producer.dispatch import Dispatcher, Written

log = structlog.get_logger()
T = TypeVar("T")

#: Longest wait between two tries when Postgres or Redis is away, seconds.
BACKOFF_CAP_S = 5.0

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


class Producer:
    """Runs one feed to its end.

    Args:
        feed: where candles come from.
        dispatcher: writes them.
        publisher: sends their chunks.
        queue_limit: most messages waiting in one queue.
        batch_candles: most candles written together.
        join_closes: write the candles of several close times together when the feed has them at hand;
            False for a feed on the clock, whose candles must not wait for the next ones.
    """

    def __init__(
        self,
        feed: Feed,
        dispatcher: Dispatcher,
        publisher: Publisher,
        *,
        queue_limit: int,
        batch_candles: int,
        join_closes: bool = True,
    ) -> None:
        self._feed = feed
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._admission = Admission(publisher.depths, queue_limit, publisher.room, STOP_GRACE_S)
        self._batch_candles = batch_candles
        self._join_closes = join_closes
        self.report = ProducerReport()

    def run(self, stop: Event, on_progress: Callable[[ProducerReport], None] = lambda _: None) -> ProducerReport:
        """Dispatch every candle of the feed; return when it ends, or after the batch in hand once `stop` is set.

        Raises:
            FeedError: the feed as a whole cannot be read.
        """
        for candles in in_batches(self._feed.batches(), self._batch_candles, join=self._join_closes):
            if stop.is_set():
                break
            self._dispatch(candles, stop)
            on_progress(self.report)
        return self.report

    def _dispatch(self, candles: list[Candle], stop: Event) -> None:
        written = self._persist(lambda: self._dispatcher.write(candles), "write candles", stop)
        if written is None:
            return
        self._count(candles, written)
        self._publisher.room = self._publisher.room._replace(slots=self._dispatcher.planner.slots)
        if self._publish(list(written.envelopes), stop):
            self._persist(lambda: self._dispatcher.mark_published(written.dispatch_ids), "mark published", stop)

    def _publish(self, envelopes: list[Envelope], stop: Event) -> bool:
        """Publish as room appears; tell whether everything is on its queue."""
        while envelopes:
            count = self._persist(lambda: self._publish_some(envelopes, stop), "publish chunks", stop)
            if not count:
                return False
            del envelopes[:count]
        return True

    def _publish_some(self, envelopes: list[Envelope], stop: Event) -> int:
        count = self._admission.await_room(envelopes, stop)
        self._publisher.publish(envelopes[:count])
        return count

    def _count(self, candles: list[Candle], written: Written) -> None:
        report = self.report
        report.candles += written.candles
        report.repeated += len(candles) - written.candles
        report.dispatches += len(written.dispatch_ids)
        report.chunks += len(written.envelopes)
        report.jobs += sum(len(envelope.chunk.jobs) for envelope in written.envelopes)

    def _persist(self, action: Callable[[], T], what: str, stop: Event) -> T | None:
        """Do it again until it works; None when asked to stop while Postgres or Redis is away."""
        wait = _Wait(what)
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            wait=wait_random_exponential(multiplier=0.2, max=BACKOFF_CAP_S),
            stop=stop_when_event_set(stop),
            sleep=lambda seconds: _wait(stop, seconds),
            before_sleep=wait.note,
            retry_error_callback=lambda _: None,
        )
        result: T | None = retrying(action)
        wait.end()
        return result


class _Wait:
    """Says once that something is waited for, and once that it came; not at every try."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: float | None = None

    def note(self, state: RetryCallState) -> None:
        """Note a try that failed."""
        if self._since is None:
            self._since = time.monotonic()
            error = state.outcome.exception() if state.outcome else None
            log.warning("waiting", to=self._what, reason=str(error))

    def end(self) -> None:
        """Note that it works again, or that the wait was broken off."""
        if self._since is not None:
            log.info("waited", to=self._what, seconds=round(time.monotonic() - self._since, 1))


def in_batches(batches: Iterable[list[Candle]], most: int, *, join: bool) -> Iterator[list[Candle]]:
    """Split a feed's batches, and join them if asked to, into batches of at most `most` candles, in order.

    No (symbol, timeframe, open_time) comes twice in one batch, so that a correction follows what it corrects.
    """
    batch: list[Candle] = []
    seen: set[tuple[str, str, datetime]] = set()
    for candles in batches:
        for candle in candles:
            key = (candle.symbol, candle.timeframe.value, candle.open_time)
            if len(batch) >= most or key in seen:
                yield batch
                batch, seen = [], set()
            batch.append(candle)
            seen.add(key)
        if batch and not join:
            yield batch
            batch, seen = [], set()
    if batch:
        yield batch


def _wait(stop: Event, seconds: float) -> None:
    stop.wait(seconds)
