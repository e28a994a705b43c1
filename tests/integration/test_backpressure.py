"""Backpressure on real servers: who is held, who goes on, what is shown, and that nothing is lost or sent twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.dialects.postgresql.ranges import MultiRange

from app.broker import QUEUES, Publisher
from app.domain.jobs import Chunk
from app.domain.queues import QueueLimit, Waiting
from app.domain.strategies import Priority
from app.maintenance.expirer import Expirer
from app.maintenance.janitor import Janitor
from app.maintenance.metrics import Findings
from app.maintenance.republisher import Republisher
from app.operations import Operations
from app.operations_doctor import Check, State, examine
from app.producer.dispatch import Dispatcher
from app.settings import DispatchSettings, Settings
from app.storage.producers import ProducerBeat, load_producers, save_producer, to_ranges
from tests.building import build_publisher, candle, definition, outcome, register, walk
from tests.integration.ledger import RULES, build_dispatcher, land_on, rows
from tests.integration.producing import ClockFeed, build_producer, running, single
from tests.integration.queues import Queues, jobs_of, read
from tests.waiting import wait_until

FEW = {"low": QueueLimit(3)}


@pytest.fixture
def looking(settings: Settings) -> Iterator[Publisher]:
    """A publisher of the test's own: the producer's belongs to its thread."""
    publisher = build_publisher(settings, jobs_in_message=1)
    yield publisher
    publisher.close()


@pytest.fixture
def high_and_low(engine: Engine) -> None:
    register(engine, definition("urgent", priority=Priority.HIGH), definition("patient", priority=Priority.LOW))


def with_limits(settings: Settings, **changes: Any) -> Settings:
    """Return settings of a deployment whose operators see, and whose maintenance keeps, other limits."""
    return settings.model_copy(update={"dispatch": DispatchSettings(**changes)})


def take_all(queues: Queues, queue: str) -> list[Chunk]:
    taken: list[Chunk] = []
    while (message := queues.take(queue)) is not None:
        taken += read(message)
    return taken


def collect(queues: Queues, queue: str, count: int) -> list[Chunk]:
    """Take chunks off a queue until so many have come."""
    taken: list[Chunk] = []

    def is_enough() -> bool:
        taken.extend(take_all(queues, queue))
        return len(taken) >= count

    wait_until(is_enough, f"{count} chunks come through {queue}")
    assert len(taken) == count
    return taken


def execute(engine: Engine, chunks: list[Chunk]) -> list[Chunk]:
    """Land an outcome of every job, as a worker does."""
    for chunk in chunks:
        land_on(engine, chunk.dispatch_id, [outcome(key.strategy_id) for key in chunk.jobs])
    return chunks


def shown(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        found = load_producers(connection, timedelta(seconds=30))
    return found[0] if found else {}


def unpublished(engine: Engine) -> int:
    return int(rows(engine, "SELECT count(*) FROM dispatches WHERE published_at IS NULL")[0][0])


def expected_jobs(engine: Engine) -> list[tuple[int, int]]:
    query = "SELECT id, unnest(strategy_ids) FROM dispatches ORDER BY 1, 2"
    return [(row[0], row[1]) for row in rows(engine, query)]


@pytest.mark.usefixtures("high_and_low")
def test_a_full_low_queue_holds_back_neither_high_nor_the_feed(
    engine: Engine, one_by_one: Publisher, looking: Publisher, queues: Queues
) -> None:
    feed = single(walk("BTC-USD", 40))
    producer = build_producer(engine, one_by_one, feed, limits={**FEW, "high": QueueLimit(4)}, batch_candles=4, most=1)
    with running(producer):
        urgent = collect(queues, "high", 40)  # every one comes, though nobody takes a low one
        assert looking.depths() == {"high": 0, "normal": 0, "low": 3}
        wait_until(lambda: shown(engine).get("held") == {"low": 37}, "the rest is shown as held")
        assert unpublished(engine) >= 37  # the two parts of a dispatch: one of them is not on its queue
        patient = collect(queues, "low", 40)
    assert [chunk.dispatch_id for chunk in patient] == sorted(chunk.dispatch_id for chunk in patient)
    assert jobs_of([*urgent, *patient]) == expected_jobs(engine)
    assert unpublished(engine) == 0
    assert rows(engine, "SELECT DISTINCT sends FROM dispatches") == [(1,)]


@pytest.mark.usefixtures("high_and_low")
def test_a_feed_that_can_wait_is_told_and_operators_see_why(
    settings: Settings, engine: Engine, one_by_one: Publisher, queues: Queues
) -> None:
    feed = single(walk("BTC-USD", 60))
    producer = build_producer(engine, one_by_one, feed, limits=FEW, batch_candles=2, most=1, ahead=10)
    seen = with_limits(settings, queue_limit_low=3)
    operations = Operations(seen)
    with running(producer) as (thread, _):
        wait_until(lambda: shown(engine).get("reason"), "it says why it waits")
        assert producer.report.candles <= 3 + 10 + 2  # what the queue takes, what is held, and a batch
        status = operations.status()
        low = next(each for each in status["pressure"] if each["queue"] == "low")
        assert (low["waiting"], low["limit"], low["full"]) == (3, 3, "full: 3 of 3")
        assert low["held"] >= 10 and low["oldest_s"] >= 0
        (row,) = status["producers"]
        assert row["is_alive"] and row["feed"] == "list" and row["notes"] == {}
        assert row["reason"].endswith("low is full: 3 of 3")
        assert row["waiting_since"] is not None
        assert said_by_doctor(seen, "producers", "has held back its feed since")
        assert said_by_doctor(seen, "queues", "low is full: 3 of 3")
        taken = [*collect(queues, "low", 60), *collect(queues, "high", 60)]
        thread.join(30)
        assert not thread.is_alive()
    operations.close()
    assert jobs_of(taken) == expected_jobs(engine)
    assert shown(engine) == {}


def said_by_doctor(settings: Settings, check: str, words: str) -> list[Check]:
    found = [each for each in examine(settings) if each.check == check and each.state is State.WARNING]
    return [each for each in found if words in each.found]


@pytest.mark.usefixtures("high_and_low")
def test_a_feed_on_the_clock_is_never_told_and_what_is_over_the_bound_goes_through_maintenance_once(
    settings: Settings, engine: Engine, one_by_one: Publisher, looking: Publisher, queues: Queues
) -> None:
    feed = ClockFeed(walk("BTC-USD", 30))
    producer = build_producer(engine, one_by_one, feed, limits=FEW, batch_candles=5, most=1, held=10)
    republisher = Republisher(engine.begin, looking, with_limits(settings, queue_limit_low=3), Findings())
    with running(producer):
        wait_until(lambda: producer.report.candles == 30, "it takes everything that the feed brings")
        wait_until(lambda: shown(engine).get("let_go") == 17, "30 less 3 in the queue and 10 held are let go")
        assert shown(engine)["held"] == {"low": 10} and shown(engine)["waiting_since"] is None
        taken = execute(engine, collect(queues, "high", 30))
        # what a living producer holds is its own, what it let go may be in the queue, and what is there is not lost
        assert maintain(republisher, engine, 8.0) == 0
        assert looking.depths()["low"] == 3
        taken += execute(engine, collect(queues, "low", 13))  # what it held follows
        wait_until(lambda: shown(engine).get("held") == {}, "and is noted")

        def is_sent() -> bool:
            maintain(republisher, engine, 30.0)
            assert looking.depths()["low"] <= 3  # within the limit of this queue
            taken.extend(execute(engine, take_all(queues, "low")))
            return unpublished(engine) == 0

        wait_until(is_sent, "maintenance sends what was let go")
        feed.end.set()
    assert jobs_of(taken) == expected_jobs(engine)  # each once
    assert unpublished(engine) == 0


def maintain(republisher: Republisher, engine: Engine, later_s: float) -> int:
    """Let maintenance look as if some seconds had passed, with all producers alive; return the messages sent."""
    now = datetime.now(UTC) + timedelta(seconds=later_s)
    republisher.run_once(now - timedelta(seconds=4))
    with engine.begin() as connection:
        connection.execute(text("UPDATE producers SET seen_at = :now"), {"now": now})
    return republisher.run_once(now).done.get("messages", 0)


@pytest.mark.parametrize("is_alive", [True, False])
def test_what_a_producer_holds_is_sent_by_maintenance_only_when_it_is_gone(
    settings: Settings, engine: Engine, looking: Publisher, queues: Queues, is_alive: bool
) -> None:
    register(engine, definition("one"))
    held = build_dispatcher(engine).write([candle(n) for n in range(5)]).dispatch_ids
    now = datetime.now(UTC) + timedelta(seconds=20)
    with engine.begin() as connection:
        save_producer(connection, ProducerBeat(producer="a:1", feed="list", started_at=now, held_ids=held[1:]))
        seen_at = now - settings.silence * (0.5 if is_alive else 1.5)
        connection.execute(text("UPDATE producers SET seen_at = :at"), {"at": seen_at})
    republisher = Republisher(engine.begin, looking, settings, Findings())
    republisher.run_once(now - timedelta(seconds=4))
    republisher.run_once(now)
    assert [chunk.dispatch_id for chunk in queues.chunks()] == list(held[:1] if is_alive else held)


@pytest.mark.parametrize(("silent_s", "is_missed"), [(0, False), (60, True)])
def test_doctor_misses_only_what_no_living_producer_holds(
    settings: Settings, engine: Engine, silent_s: int, is_missed: bool
) -> None:
    register(engine, definition("one"))
    held = build_dispatcher(engine).write([candle(0)]).dispatch_ids
    beat = ProducerBeat(producer="a:1", feed="list", started_at=datetime.now(UTC), held={"normal": 1}, held_ids=held)
    with engine.begin() as connection:
        save_producer(connection, beat)
        connection.execute(text("UPDATE producers SET seen_at = now() + make_interval(secs => :s)"), {"s": -silent_s})
        connection.execute(text("UPDATE dispatches SET created_at = now() - interval '1 minute'"))
    assert bool(said_by_doctor(settings, "dispatches", "1 were never published")) is is_missed
    assert bool(said_by_doctor(settings, "producers", "a:1 was last seen")) is is_missed


def test_the_janitor_forgets_producers_that_never_said_goodbye(settings: Settings, engine: Engine) -> None:
    now = datetime.now(UTC)
    with engine.begin() as connection:
        for name in ("old:1", "new:1"):
            save_producer(connection, ProducerBeat(producer=name, feed="list", started_at=now))
        connection.execute(text("UPDATE producers SET seen_at = :at WHERE producer = 'old:1'"), {"at": now})
    janitor = Janitor(engine.begin, lambda _: None, settings.silence, 1.0)
    assert janitor.run_once(now + 10 * settings.silence).done == {"producers": 1}
    assert rows(engine, "SELECT producer FROM producers") == [("new:1",)]


def test_a_producer_with_nothing_to_read_drains_its_hold(
    engine: Engine, one_by_one: Publisher, looking: Publisher, queues: Queues
) -> None:
    register(engine, definition("one", priority=Priority.LOW))
    feed = ClockFeed(walk("BTC-USD", 12))
    with running(build_producer(engine, one_by_one, feed, limits=FEW, most=1)):
        wait_until(lambda: looking.depths()["low"] == 3, "the queue is full")
        taken = collect(queues, "low", 12)
        wait_until(lambda: unpublished(engine) == 0, "and is noted")
        feed.end.set()
    assert jobs_of(taken) == expected_jobs(engine)


def test_what_is_out_of_date_is_dropped_and_ends_as_expired(
    settings: Settings, engine: Engine, one_by_one: Publisher, looking: Publisher
) -> None:
    register(engine, definition("one", priority=Priority.LOW))
    dispatcher = short_lived(engine, timedelta(seconds=0.5))
    limits = {"low": QueueLimit(2)}
    producer = build_producer(engine, one_by_one, single(walk("BTC-USD", 9)), limits=limits, dispatcher=dispatcher)
    with running(producer) as (thread, _):
        thread.join(30)  # it ends although nobody takes anything
        assert not thread.is_alive()
    assert (producer.report.expired, looking.depths()["low"]) == (7, 2)
    assert rows(engine, "SELECT published_at IS NULL, count(*) FROM dispatches GROUP BY 1 ORDER BY 1") == [
        (False, 2),
        (True, 7),
    ]
    expirer = Expirer(engine.begin, RULES, settings.silence, 1.0)
    now = datetime.now(UTC) + timedelta(minutes=1)
    expirer.run_once(now - settings.silence)
    assert expirer.run_once(now).done == {"expired": 9}
    assert rows(engine, "SELECT DISTINCT status FROM outcomes") == [("expired",)]


def short_lived(engine: Engine, lifetime: timedelta) -> Dispatcher:
    return Dispatcher(
        engine,
        "test",
        settings=DispatchSettings(chunk_size=1, trusted_after=0, lifetime_s=lifetime.total_seconds()),
        hard_grace_s=5.0,
        rules=RULES,
        silence=timedelta(seconds=3),
    )


def test_a_queue_whose_oldest_message_is_too_old_takes_no_more_until_it_is_taken(
    engine: Engine, one_by_one: Publisher, looking: Publisher, queues: Queues
) -> None:
    register(engine, definition("one", priority=Priority.LOW))
    (old,) = build_dispatcher(engine).write([candle(0)]).envelopes
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    looking.publish([type(old)(old.chunk.model_copy(update={"created_at": hour_ago}), None, "", 1.0)])
    waiting = looking.waiting()
    assert waiting["low"].depth == 1 and 3600 <= (waiting["low"].oldest_s or 0) < 3700
    assert waiting["high"] == Waiting(0)
    assert looking.waiting(heads=("high",))["low"] == Waiting(1)
    limits = {"low": QueueLimit(100, age_s=60.0)}
    producer = build_producer(engine, one_by_one, single(walk("BTC-USD", 8)[1:]), limits=limits, ahead=1)
    with running(producer) as (thread, _):
        reason = str(wait_until(lambda: shown(engine).get("reason"), "it says why it waits"))
        assert "low is late: its oldest message was dispatched 3,60" in reason
        assert looking.depths()["low"] == 1
        assert queues.take("low") is not None
        thread.join(30)
        assert not thread.is_alive()
    assert len(take_all(queues, "low")) == 7


def test_messages_that_are_not_ours_have_no_age(settings: Settings, looking: Publisher) -> None:
    key = f"{settings.broker.key_prefix}low"
    with redis.from_url(settings.broker_dsn) as client:
        for raw in ("", "nothing", "[]", "{}", json.dumps({"body": 7}), json.dumps({"body": "e30="})):
            client.lpush(key, raw)
            assert looking.waiting()["low"] == Waiting(1)
            client.delete(key)


def test_a_producer_that_is_asked_to_stop_leaves_the_rest_and_says_so(
    settings: Settings, engine: Engine, one_by_one: Publisher, looking: Publisher, queues: Queues
) -> None:
    register(engine, definition("one", priority=Priority.LOW))
    producer = build_producer(engine, one_by_one, single(walk("BTC-USD", 20)), limits=FEW)
    with running(producer) as (thread, stop):
        wait_until(lambda: shown(engine).get("held") == {"low": 17}, "the rest is held")
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
    assert producer.report.let_go == 17
    assert shown(engine) == {}
    low = execute(engine, take_all(queues, "low"))
    republisher = Republisher(engine.begin, looking, settings, Findings())
    maintain(republisher, engine, 30.0)
    assert jobs_of([*low, *take_all(queues, "low")]) == expected_jobs(engine)


def test_ids_travel_as_ranges(engine: Engine) -> None:
    ids = [9, 1, 2, 3, 2, 7, 8, 12, 10**12]
    assert to_ranges([]) == MultiRange()
    with engine.begin() as connection:
        save_producer(
            connection, ProducerBeat(producer="a:1", feed="f", started_at=datetime.now(UTC), held_ids=tuple(ids))
        )
    stored = "{[1,4),[7,10),[12,13),[1000000000000,1000000000001)}"
    assert rows(engine, "SELECT held_ids::text FROM producers") == [(stored,)]
    asked = "SELECT n FROM generate_series(CAST(0 AS bigint), 13) n, producers p WHERE n <@ p.held_ids"
    assert [row[0] for row in rows(engine, asked)] == [1, 2, 3, 7, 8, 9, 12]


def test_limits_of_a_queue_are_its_own_or_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch = DispatchSettings(queue_limit=50, queue_limit_high=7, queue_age_s=30.0, queue_age_low_s=0.0)
    assert dispatch.limits == {"high": QueueLimit(7, 30.0), "normal": QueueLimit(50, 30.0), "low": QueueLimit(50)}
    assert DispatchSettings().limits == dict.fromkeys(QUEUES, QueueLimit(100))
