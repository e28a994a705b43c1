"""Producers for integration tests: built by hand, run in a thread, fed by feeds that wait or do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

from sqlalchemy import Engine

from app.broker import QUEUES, Publisher
from app.domain.candles import Candle
from app.domain.queues import QueueLimit
from app.feeds.base import Feed
from app.producer.admission import Bounds
from app.producer.dispatch import Dispatcher
from app.producer.presence import Presence
from app.producer.service import Producer
from tests.building import ListFeed
from tests.integration.ledger import build_dispatcher

#: Seconds between two signs of life of a test's producer.
BEAT_S = 0.05


def build_producer(
    engine: Engine,
    publisher: Publisher,
    feed: Feed,
    *,
    queue_limit: int = 1000,
    limits: Mapping[str, QueueLimit] | None = None,
    batch_candles: int = 64,
    most: int = 32,
    held: int = 10_000,
    ahead: int = 500,
    dispatcher: Dispatcher | None = None,
) -> Producer:
    return Producer(
        feed,
        dispatcher or build_dispatcher(engine, jobs_in_chunk=most),
        publisher,
        Presence(engine, BEAT_S),
        limits={**dict.fromkeys(QUEUES, QueueLimit(queue_limit)), **(limits or {})},
        bounds=Bounds(held=held, ahead=ahead),
        batch_candles=batch_candles,
    )


@contextmanager
def running(producer: Producer) -> Iterator[tuple[Thread, Event]]:
    """Run a producer in a thread; it is told to stop and joined at the end."""
    stop = Event()
    thread = Thread(target=lambda: producer.run(stop), name="producer of a test")
    thread.start()
    try:
        yield thread, stop
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def single(candles: list[Candle]) -> ListFeed:
    return ListFeed(*([each] for each in candles))


class ClockFeed(ListFeed):
    """A feed that cannot be told to wait: it hands on its candles, then has none until it is ended."""

    can_wait = False

    def __init__(self, candles: list[Candle]) -> None:
        super().__init__(*([each] for each in candles))
        self.end = Event()

    def batches(self) -> Iterator[list[Candle]]:
        yield from super().batches()
        assert self.end.wait(60)
