"""Publishing: what a message looks like on its queue, and a broker that is away."""

from __future__ import annotations

import json

import pytest
import redis
from sqlalchemy import Engine

from app.broker import EXECUTE_TASK, PIPELINE_SIZE, QUEUES, Envelope, Publisher
from app.domain.strategies import Priority
from app.errors import BrokerUnavailableError
from app.settings import Settings
from tests.building import build_publisher, candle, definition, register
from tests.integration.ledger import build_dispatcher
from tests.integration.queues import Queues, jobs_of, read


@pytest.fixture
def envelopes(engine: Engine) -> tuple[Envelope, ...]:
    register(
        engine,
        definition("trend"),
        definition("reversion"),
        definition("urgent", priority=Priority.HIGH),
        definition("patient", priority=Priority.LOW),
    )
    return build_dispatcher(engine).write([candle(0)]).envelopes


def test_message_is_readable_json_that_says_what_it_is(
    publisher: Publisher, queues: Queues, settings: Settings, envelopes: tuple[Envelope, ...]
) -> None:
    publisher.publish(envelopes)
    with redis.from_url(settings.broker_dsn) as client:
        raw = json.loads(client.lindex(f"{settings.broker.key_prefix}normal", 0))
    assert raw["content-type"] == "application/json"
    message = queues.take("normal")
    assert message is not None
    headers, (chunk,) = message.headers, read(message)
    assert (headers["task"], headers["id"], headers["shadow"]) == (EXECUTE_TASK, "1.1+1", None)
    assert headers["argsrepr"] == "BTC-USD 1h 2024-01-01T00:00Z: trend, reversion"
    assert headers["timelimit"][0] == envelopes[1].hard_limit_s
    assert headers["correlation_id"] == chunk.correlation_id
    assert (headers["retries"], headers["eta"], headers["ignore_result"]) == (0, None, True)
    assert chunk.to_wire() == envelopes[1].chunk.to_wire()


def test_single_job_carries_its_strategys_name(
    publisher: Publisher, queues: Queues, envelopes: tuple[Envelope, ...]
) -> None:
    publisher.publish(envelopes)
    message = queues.take("high")
    assert message is not None
    assert (message.headers["shadow"], message.headers["id"]) == ("urgent", "1.3")
    assert message.headers["argsrepr"] == "BTC-USD 1h 2024-01-01T00:00Z: urgent"


def test_retry_says_which_attempt_it_is_and_when_it_may_run(
    publisher: Publisher, queues: Queues, envelopes: tuple[Envelope, ...]
) -> None:
    first = envelopes[0]
    chunk = first.chunk.model_copy(update={"attempt": 2})
    publisher.publish([Envelope(chunk, first.label, first.arguments, 10.0, countdown_s=5.0)])
    message = queues.take("high")
    assert message is not None
    assert message.headers["retries"] == 2
    assert message.headers["eta"] is not None
    assert [chunk.attempt for chunk in read(message)] == [2]


def test_each_priority_has_its_queue(publisher: Publisher, queues: Queues, envelopes: tuple[Envelope, ...]) -> None:
    publisher.publish(envelopes)
    assert publisher.depths() == {"high": 1, "normal": 1, "low": 1}
    for name in QUEUES:
        assert [chunk.priority.value for chunk in read(queues.take(name))] == [name]


@pytest.mark.parametrize(("most", "messages"), [(1, 2 * PIPELINE_SIZE + 7), (2, PIPELINE_SIZE + 4), (32, 32)])
def test_more_than_a_pipeline_arrives_in_order(
    settings: Settings, queues: Queues, envelopes: tuple[Envelope, ...], most: int, messages: int
) -> None:
    def numbered(number: int) -> Envelope:
        chunk = envelopes[0].chunk.model_copy(update={"dispatch_id": number})
        return Envelope(chunk, None, "", 10.0)

    count = 2 * PIPELINE_SIZE + 7
    publisher = build_publisher(settings, jobs_in_message=most)
    publisher.publish([numbered(n) for n in range(count)])
    assert publisher.depths()["high"] == messages
    assert [chunk.dispatch_id for chunk in queues.chunks()] == list(range(count))
    publisher.close()


def test_chunks_of_many_candles_share_messages_by_priority(
    settings: Settings, engine: Engine, queues: Queues, envelopes: tuple[Envelope, ...]
) -> None:
    written = build_dispatcher(engine).write([candle(n) for n in range(1, 21)]).envelopes
    publisher = build_publisher(settings, jobs_in_message=32)
    publisher.publish(written)
    # 20 jobs of one strategy fit in one message; of two strategies 32 jobs are 16 candles
    assert publisher.depths() == {"high": 1, "normal": 2, "low": 1}
    message = queues.take("high")
    assert message is not None
    assert message.headers["id"] == "2.3~19"
    assert message.headers["argsrepr"] == "BTC-USD 1h 2024-01-01T01:00Z: urgent; and 19 more candles"
    assert message.headers["shadow"] is None
    found = [*read(message), *queues.chunks()]
    assert [chunk.to_wire() for chunk in found] == [envelope.chunk.to_wire() for envelope in written]
    publisher.close()


def test_retries_travel_alone(publisher: Publisher, queues: Queues, envelopes: tuple[Envelope, ...]) -> None:
    def waiting(number: int, seconds: float | None) -> Envelope:
        chunk = envelopes[0].chunk.model_copy(update={"dispatch_id": number, "attempt": 1})
        return Envelope(chunk, None, "", 10.0, countdown_s=seconds)

    publisher.publish([waiting(1, 0.5), waiting(2, 7.0), waiting(3, None), waiting(4, None), waiting(5, 0.5)])
    assert [[chunk.dispatch_id for chunk in read(message)] for message in queues.drain()] == [[1], [2], [3, 4], [5]]


def test_clear_drops_what_waits_and_what_is_held(
    publisher: Publisher, settings: Settings, queues: Queues, envelopes: tuple[Envelope, ...]
) -> None:
    publisher.publish(envelopes)
    assert publisher.clear() == 3
    assert publisher.depths() == dict.fromkeys(QUEUES, 0)
    assert publisher.clear() == 0
    publisher.publish(envelopes)
    assert len(jobs_of(queues.chunks())) == 4


def test_deployments_on_one_redis_do_not_see_each_other(
    publisher: Publisher, settings: Settings, envelopes: tuple[Envelope, ...]
) -> None:
    other = settings.model_copy(update={"broker": settings.broker.model_copy(update={"key_prefix": "test-other:"})})
    neighbour = build_publisher(other)
    publisher.publish(envelopes)
    assert neighbour.depths() == dict.fromkeys(QUEUES, 0)
    neighbour.clear()
    assert sum(publisher.depths().values()) == 3
    neighbour.close()


def test_publisher_goes_on_after_its_connection_was_cut(
    publisher: Publisher, settings: Settings, queues: Queues, envelopes: tuple[Envelope, ...]
) -> None:
    publisher.publish(envelopes)
    with redis.from_url(settings.broker_dsn) as client:
        own = publisher._open().channel.client.client_id()
        client.client_kill_filter(_id=own)
    published = []
    for _ in range(2):  # the first may find out that the connection is gone
        try:
            publisher.publish(envelopes)
            published.append(True)
        except BrokerUnavailableError:
            published.append(False)
    assert published[-1]
    chunks = queues.chunks()
    assert len(chunks) == 3 * (1 + sum(published))
    assert set(jobs_of(chunks)) == {(1, n) for n in (1, 2, 3, 4)}
