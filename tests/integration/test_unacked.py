"""The book of what is fetched and not acknowledged: what Redis knows of a message at each step of its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from app.broker import create_celery
from app.settings import Settings
from tests.waiting import wait_until
from workers.letters import build_transport
from workers.unacked import Unacked


class Reader:
    """Fetches from one queue as a node does, and keeps what it was given."""

    def __init__(self, app: Celery, settings: Settings, transport: type[Any] | None = None) -> None:
        self._redis, self._prefix = redis.from_url(settings.broker_dsn), settings.broker.key_prefix
        self.refused: list[str] = []
        self.got: list[Any] = []
        self.noted_when_handed_over: list[int] = []
        self.at_once: Callable[[Any], None] = lambda _: None
        self.transport = transport or build_transport(lambda reason, _text: self.refused.append(reason))
        self.connection: Connection = app.connection_for_read()
        self.connection.get_transport_cls = lambda: self.transport
        self.channel = self.connection.default_channel
        consumer = self.connection.Consumer([app.amqp.queues["normal"]], on_message=self._take)
        consumer.qos(prefetch_count=10)
        consumer.consume()

    def _take(self, message: Any) -> None:
        self.noted_when_handed_over.append(self.noted)
        self.got.append(message)
        self.at_once(message)

    def fetch(self) -> Any:
        count = len(self.got)
        while len(self.got) == count:
            self.connection.drain_events(timeout=10)
        return self.got[-1]

    @property
    def noted(self) -> int:
        """Messages that Redis would give to another node, were this one to die."""
        held = int(self._redis.hlen(f"{self._prefix}unacked"))
        assert held == self._redis.zcard(f"{self._prefix}unacked_index")
        return held

    @property
    def waiting(self) -> list[str]:
        return [raw.decode() for raw in self._redis.lrange(f"{self._prefix}normal", 0, -1)]  # type: ignore[union-attr]


@pytest.fixture
def app(settings: Settings) -> Celery:
    return create_celery(settings)


@pytest.fixture
def reader(app: Celery, settings: Settings) -> Iterator[Reader]:
    with app.connection_for_write() as connection:
        for number in range(3):
            connection.default_channel.basic_publish(
                connection.default_channel.prepare_message(f"[{number}]", content_type="application/json"),
                exchange="",
                routing_key="normal",
            )
    reader = Reader(app, settings)
    yield reader
    reader.connection.release()


@pytest.fixture
def loop() -> Iterator[Hub]:
    before, hub = get_event_loop(), Hub()
    yield set_event_loop(hub)
    hub.close()
    set_event_loop(before)


def test_a_node_keeps_its_book_like_this(reader: Reader) -> None:
    assert isinstance(reader.channel.qos, Unacked)


def test_a_fetched_message_is_noted_before_it_is_handed_over(reader: Reader) -> None:
    reader.fetch()
    assert (reader.noted_when_handed_over, reader.noted) == ([1], 1)


def test_without_an_event_loop_an_acknowledgement_is_told_at_once(reader: Reader) -> None:
    first, second = reader.fetch(), reader.fetch()
    first.ack()
    assert reader.noted == 1
    second.ack()
    assert reader.noted == 0


def test_acknowledgements_travel_with_the_next_message(reader: Reader, loop: Hub) -> None:
    first, second = reader.fetch(), reader.fetch()
    first.ack()
    second.ack()
    assert reader.noted == 2, "they wait for company"
    reader.fetch()
    assert reader.noted == 1


def test_acknowledgements_without_company_are_told_within_moments(reader: Reader, loop: Hub) -> None:
    reader.fetch().ack()
    assert reader.noted == 1
    wait_until(lambda: loop.fire_timers() and reader.noted == 0, "the acknowledgement is told")


def test_a_message_that_is_given_back_while_it_is_handed_over_is_not_lost(reader: Reader, loop: Hub) -> None:
    reader.at_once = lambda message: message.requeue()
    message = reader.fetch()
    assert (reader.noted, message.delivery_tag in "".join(reader.waiting)) == (0, True)


def test_what_is_not_acknowledged_goes_back_at_the_end_and_what_is_does_not(reader: Reader, loop: Hub) -> None:
    kept, done = reader.fetch(), reader.fetch()
    done.ack()
    reader.channel.close()
    assert len(reader.waiting) == 2
    assert kept.properties["delivery_tag"] in "".join(reader.waiting)
    assert done.properties["delivery_tag"] not in "".join(reader.waiting)


def test_a_connection_that_kombu_has_taken_apart_gives_back_all_the_same(reader: Reader, loop: Hub) -> None:
    message = reader.fetch()
    reader.channel._disconnect_pools()
    reader.channel.connection.client = None
    reader.channel.qos.restore_unacked_once()
    assert message.delivery_tag in "".join(reader.waiting)
    assert reader.noted == 0


def test_what_could_not_be_told_is_told_at_the_end(reader: Reader, loop: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    qos, done = reader.channel.qos, reader.fetch()
    done.ack()
    with monkeypatch.context() as patch:
        patch.setattr(type(qos._client), "pipeline", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            qos.flush()
    assert reader.noted == 1
    reader.channel.close()
    assert reader.noted == 0
    assert done.delivery_tag not in "".join(reader.waiting)


def test_a_message_that_redis_went_away_from_is_given_back_by_the_next_connection(
    app: Celery, settings: Settings, reader: Reader, loop: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        raise redis.ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(reader.channel.qos, "flush", lose)
        with pytest.raises(redis.ConnectionError):
            reader.fetch()
        reader.channel.close()
    assert (reader.noted, len(reader.waiting)) == (0, 2)
    again = Reader(app, settings, reader.transport)
    for _ in range(2):
        again.channel.qos.restore_visible()
        assert len(reader.waiting) == 3
    again.connection.release()
