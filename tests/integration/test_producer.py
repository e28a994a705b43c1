"""The producer: bounded queues, nothing lost whoever is slow or away, and an end when one is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest
from sqlalchemy import Engine

from app import embedded
from app.broker import QUEUES, Publisher
from app.domain.candles import Candle
from app.domain.jobs import Chunk
from app.domain.strategies import Priority
from app.producer.service import ProducerReport
from app.settings import Settings
from app.storage.engine import build_engine
from app.storage.migrate import upgrade
from tests.building import ListFeed, build_publisher, candle, definition, register, walk
from tests.conftest import serving, settings_on
from tests.integration.ledger import rows
from tests.integration.producing import build_producer, running, single
from tests.integration.queues import Queues, jobs_of, read
from tests.waiting import wait_until


def expected_jobs(engine: Engine) -> list[tuple[int, int]]:
    query = "SELECT id, unnest(strategy_ids) FROM dispatches ORDER BY 1, 2"
    return [(row[0], row[1]) for row in rows(engine, query)]


def test_report_and_ledger_and_queues_agree(engine: Engine, publisher: Publisher, queues: Queues) -> None:
    register(engine, definition("one"), definition("two", priority=Priority.LOW), definition("eth", symbols=["ETH-*"]))
    eth, xrp, corrected = candle(0, "ETH-USD"), candle(1, "XRP-USD"), candle(1, close=99.5)
    feed = ListFeed([candle(0), eth], [candle(1), xrp], [candle(0)], [corrected])
    report = build_producer(engine, publisher, feed).run(Event())
    assert report == ProducerReport(candles=5, repeated=1, dispatches=5, chunks=10, jobs=11)
    assert jobs_of(queues.chunks()) == expected_jobs(engine)
    assert rows(engine, "SELECT count(*) FROM dispatches WHERE published_at IS NULL") == [(0,)]
    assert feed.report.accepted == 6


def test_same_feed_again_publishes_nothing(engine: Engine, publisher: Publisher, queues: Queues) -> None:
    register(engine, definition("one"))
    candles = walk("BTC-USD", 30)
    build_producer(engine, publisher, single(candles)).run(Event())
    queues.chunks()
    report = build_producer(engine, publisher, single(candles)).run(Event())
    assert report == ProducerReport(repeated=30)
    assert publisher.depths() == dict.fromkeys(QUEUES, 0)


@pytest.mark.parametrize("batch_candles", [1, 7, 64])
def test_batches_change_nothing_but_speed(
    engine: Engine, publisher: Publisher, queues: Queues, batch_candles: int
) -> None:
    register(engine, definition("one"))
    feed = ListFeed(*([candle(n, symbol) for symbol in ("A-USD", "B-USD", "C-USD")] for n in range(20)))
    build_producer(engine, publisher, feed, batch_candles=batch_candles).run(Event())
    found = [(c.candle.open_time, c.candle.symbol, c.previous_open_time) for c in queues.chunks()]
    assert found == [
        (candle(n).open_time, symbol, candle(n - 1).open_time if n else None)
        for n in range(20)
        for symbol in ("A-USD", "B-USD", "C-USD")
    ]


def test_no_queue_ever_passes_its_limit_and_nothing_is_lost(
    engine: Engine, one_by_one: Publisher, queues: Queues, settings: Settings
) -> None:
    limit = 6
    register(engine, *(definition(f"s{n}", priority=priority) for n, priority in enumerate([*Priority] * 3)))
    producer = build_producer(engine, one_by_one, single(walk("BTC-USD", 25)), queue_limit=limit, most=1)
    looking = build_publisher(settings)
    taken: list[Chunk] = []
    deepest = 0
    with running(producer) as (thread, _):
        while thread.is_alive() or any(looking.depths().values()):
            depths = looking.depths()
            deepest = max(deepest, *depths.values())
            fullest = max(depths, key=lambda name: depths[name])
            if (message := queues.take(fullest)) is not None:
                taken += read(message)
    looking.close()
    assert deepest == limit  # it was full, and never fuller
    assert jobs_of(taken) == expected_jobs(engine)
    assert len(taken) == 25 * 9
    assert rows(engine, "SELECT count(*) FROM dispatches WHERE published_at IS NULL") == [(0,)]


def test_stop_ends_a_producer_that_waits_for_room(engine: Engine, one_by_one: Publisher, queues: Queues) -> None:
    register(engine, definition("one"))
    producer = build_producer(engine, one_by_one, single(walk("BTC-USD", 50)), queue_limit=3, batch_candles=5, ahead=1)
    with running(producer) as (thread, stop):
        wait_until(lambda: one_by_one.depths()["normal"] == 3, "the queue is full")
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
    assert producer.report.candles == 5  # nothing was read beyond the batch in hand
    # what was not published is in the ledger, for whoever sends it later
    assert rows(engine, "SELECT count(*), count(published_at) FROM dispatches") == [(5, 3)]
    assert len(queues.chunks()) == 3


def test_stop_before_the_start_does_nothing(engine: Engine, publisher: Publisher) -> None:
    register(engine, definition("one"))
    stop = Event()
    stop.set()
    assert build_producer(engine, publisher, single([candle(0)])).run(stop) == ProducerReport()
    assert rows(engine, "SELECT count(*) FROM candles") == [(0,)]


class Outage:
    """A deployment on servers of its own, which may be stopped."""

    def __init__(self, servers: embedded.Servers) -> None:
        self.servers = servers
        self.settings = settings_on(servers.database_url, servers.broker_url, "")
        self.engine = build_engine(self.settings.database_dsn, name="tests")
        self.publisher = build_publisher(self.settings)


@pytest.fixture(scope="module")
def outage() -> Iterator[Outage]:
    with serving() as servers:
        outage = Outage(servers)
        upgrade(outage.engine)
        register(outage.engine, definition("one"), definition("two", priority=Priority.HIGH))
        yield outage
        outage.publisher.close()
        outage.engine.dispose()


class GatedFeed(ListFeed):
    """Hands on its first half, then waits until it is let go."""

    def __init__(self, candles: list[Candle]) -> None:
        super().__init__(*([each] for each in candles))
        self.half = len(candles) // 2
        self.go = Event()

    def batches(self) -> Iterator[list[Candle]]:
        for number, batch in enumerate(super().batches()):
            if number == self.half:
                assert self.go.wait(30)
            yield batch


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_producer_waits_for_a_server_that_is_away_and_loses_nothing(outage: Outage, kind: str) -> None:
    symbol = f"{kind.upper()}-USD"
    feed = GatedFeed(walk(symbol, 40))
    producer = build_producer(outage.engine, outage.publisher, feed, batch_candles=4)
    server: embedded.KeptServer = getattr(outage.servers, kind)
    mine = f"SELECT id, unnest(strategy_ids) FROM dispatches WHERE symbol = '{symbol}' ORDER BY 1, 2"
    with running(producer) as (thread, _):
        wait_until(lambda: feed.report.accepted > feed.half, "half of the feed has been handed on")
        before = producer.report.candles
        server.stop()
        feed.go.set()
        assert not server.answers()
        thread.join(1)  # long enough for a first try: it must not end the producer
        assert thread.is_alive()
        assert producer.report.candles <= before + 12  # the batch in hand, and what was read ahead of it
        server.start()
        thread.join(30)
        assert not thread.is_alive()
    assert producer.report.candles == 40
    queues = Queues(outage.settings)
    found = jobs_of(queues.chunks())
    queues.close()
    # at least once: what was cut off in the middle of a publish may be there twice
    assert sorted(set(found)) == [(row[0], row[1]) for row in rows(outage.engine, mine)]
    assert len(set(found)) == 80
    unpublished = f"SELECT count(*) FROM dispatches WHERE symbol = '{symbol}' AND published_at IS NULL"
    assert rows(outage.engine, unpublished) == [(0,)]
