"""The way of events to Redis: a connection of a slot's own, opened after the fork, given up when Redis is away."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery
from celery.events.event import get_exchange
from kombu import Connection, Producer
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from app.errors import BrokerUnavailableError
from workers.telling import Event

#: Seconds one answer of Redis may take: what sends has a thread of its own, but a slot that ends waits for it.
PATIENCE_S = 1.0

#: What Celery's own dispatcher names a message that holds a list of task events.
ROUTING_KEY = "task.multi"


class EventSender:
    """Sends lists of events, each in one message. One per slot; not thread-safe; connects with the first list."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def send(self, node: str, events: Sequence[Event]) -> None:
        """Send events of a node; nothing is tried again.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        try:
            # as Celery's own dispatcher does
            headers = {"hostname": node}
            self._open().publish(list(events), routing_key=ROUTING_KEY, headers=headers, delivery_mode=1, retry=False)
        except (KombuError, RedisError, OSError) as error:
            self.close()
            raise BrokerUnavailableError(f"Redis is away: {error}") from error

    def close(self) -> None:
        """Close the connection; the next call opens a new one. Idempotent."""
        if self._connection is not None:
            self._connection.release()
        self._connection = self._producer = None

    def _open(self) -> Producer:
        if self._producer is None:
            conf = self._app.conf
            self._connection = connection = self._app.connection_for_write()
            bounds = {"socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S}
            connection.transport_options = {**conf.broker_transport_options, **bounds}
            self._producer = Producer(
                connection.channel(),  # not the default channel: it tries to connect for ever
                exchange=get_exchange(connection, name=conf.event_exchange),
                serializer=conf.event_serializer,
            )
        return self._producer
