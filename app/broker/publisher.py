"""Publishing: chunks and the fleet's own tasks on their way to Redis, and a look at what waits there.

May be repeated at any time: ids are deterministic and recording is idempotent.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.utils.nodenames import anon_nodename
from kombu import Connection, Producer
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError

from app.broker.names import BATCH_QUEUE, CONTROL_QUEUE, EXECUTE_TASK, QUEUES
from app.broker.packing import Envelope, pack
from app.domain.costs import Room
from app.domain.jobs import Bundle
from app.domain.queues import Waiting
from app.errors import BrokerUnavailableError
from app.heads import read_waiting

#: Hard limit of a control task, seconds.
CONTROL_LIMIT_S = 30.0

#: Messages of one pipeline; large enough that the round trip disappears, small enough to bound memory.
PIPELINE_SIZE = 500


class Publisher:
    """Sends chunks to their queues, many in one pipeline. One per process; not thread-safe.

    Args:
        app: the application.
        room: how much a message may hold.
        queue: where all chunks go, instead of the queue of their priority.
    """

    def __init__(self, app: Celery, room: Room, *, queue: str | None = None) -> None:
        self.room = room
        self._queue = queue
        self._app = app
        self._origin = anon_nodename()
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Send all chunks, in order. After an error send all of them again: a repeated chunk changes nothing.

        Chunks that follow each other with the same priority share messages, as far as there is `room`.

        Raises:
            BrokerUnavailableError: Redis is away, or the connection broke with delivery unknown.
        """
        self.send(pack(envelopes, self.room))

    def send(self, messages: Iterable[Sequence[Envelope]]) -> None:
        """Send messages as they are, each the chunks that `pack` put together; else as `publish`.

        Raises:
            BrokerUnavailableError: as `publish`.
        """
        with self._translated():
            producer = self._open()
            with producer.batch(PIPELINE_SIZE):
                for group in messages:
                    self._send(producer, group)

    def send_control(
        self,
        task: str,
        body: Mapping[str, Any],
        *,
        task_id: str,
        correlation_id: str = "",
        queue: str = CONTROL_QUEUE,
        limit_s: float = CONTROL_LIMIT_S,
    ) -> None:
        """Send one of the fleet's own tasks; its slot is killed after `limit_s` seconds.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._translated():
            options = {"task_id": task_id, "correlation_id": correlation_id, "argsrepr": task_id}
            self._put(self._open(), task, body, queue=queue, time_limit=limit_s, **options)

    def oldest(self) -> dict[str, str | None]:
        """Return the task id of the message that has waited longest in each queue; None for an empty queue.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._translated():
            channel = self._open().channel
            pipeline = channel.client.pipeline(transaction=False)
            for queue in QUEUES:
                # kombu puts the prefix before the keys of the commands it uses itself, and LINDEX is none of them
                pipeline.lindex(f"{channel.global_keyprefix}{queue}", -1)
            return {queue: _task_id(raw) for queue, raw in zip(QUEUES, pipeline.execute(), strict=True)}

    def depths(self) -> dict[str, int]:
        """Return how many messages wait in each queue, not counting those that workers hold.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._translated():
            pipeline = self._open().channel.client.pipeline(transaction=False)
            for queue in QUEUES:
                pipeline.llen(queue)
            return dict(zip(QUEUES, pipeline.execute(), strict=True))

    def waiting(self, heads: Collection[str] = QUEUES) -> dict[str, Waiting]:
        """Return what waits in each queue, in one round trip; the age of the oldest message for the queues in `heads`.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._translated():
            channel = self._open().channel
            pipeline = channel.client.pipeline(transaction=False)
            for queue in QUEUES:
                pipeline.llen(queue)
            asked = [queue for queue in QUEUES if queue in heads]
            for queue in asked:
                pipeline.lindex(f"{channel.global_keyprefix}{queue}", -1)  # as in `oldest`
            answers, now = pipeline.execute(), datetime.now(UTC)
        front = dict(zip(asked, answers[len(QUEUES) :], strict=True))
        return {queue: read_waiting(answers[n], front.get(queue), now) for n, queue in enumerate(QUEUES)}

    def task_ids(self, queue: str) -> list[str | None]:
        """Return the task ids of the messages that wait in a queue, the oldest last.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._translated():
            channel = self._open().channel
            return [_task_id(raw) for raw in channel.client.lrange(f"{channel.global_keyprefix}{queue}", 0, -1)]

    @contextmanager
    def redis(self) -> Iterator[Redis]:
        """Hand out the client, for what is no message; it prefixes the keys of some commands only.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._translated():
            yield self._open().channel.client

    def clear(self) -> int:
        """Drop every message, waiting or held by a worker; return how many were waiting.

        Nothing is lost for good: Postgres knows what is expected, and it can be sent again.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        waiting = sum(self.depths().values())
        with self._translated():
            channel = self._open().channel
            channel.client.delete(CONTROL_QUEUE, *QUEUES, BATCH_QUEUE, channel.unacked_key, channel.unacked_index_key)
        return waiting

    def close(self) -> None:
        """Close the connection; the next call opens a new one. Idempotent."""
        if self._connection is not None:
            self._connection.release()
        self._connection = self._producer = None

    def _open(self) -> Producer:
        if self._producer is None:
            self._connection = self._app.connection_for_write()
            # the anonymous exchange delivers to the queue named by the routing key, without looking up bindings
            self._producer = Producer(self._connection.default_channel, auto_declare=False)
        return self._producer

    def _send(self, producer: Producer, group: Sequence[Envelope]) -> None:
        first, bundle = group[0], Bundle.model_construct(chunks=tuple(envelope.chunk for envelope in group))
        self._put(
            producer,
            EXECUTE_TASK,
            bundle.to_wire(),
            queue=self._queue or bundle.priority.value,
            task_id=bundle.task_id,
            correlation_id=first.chunk.correlation_id,
            countdown=first.countdown_s,
            expires=max(envelope.chunk.expires_at for envelope in group),
            time_limit=max(envelope.hard_limit_s for envelope in group),
            retries=first.chunk.attempt,
            shadow=first.label if len(group) == 1 else None,
            argsrepr=first.arguments if len(group) == 1 else f"{first.arguments}; and {len(group) - 1} more candles",
        )

    def _put(
        self,
        producer: Producer,
        task: str,
        body: Mapping[str, Any],
        *,
        queue: str,
        task_id: str,
        correlation_id: str,
        **options: Any,
    ) -> None:
        headers, properties, message, _ = self._app.amqp.as_task_v2(
            task_id, task, args=[body], kwargsrepr="", origin=self._origin, ignore_result=True, **options
        )
        headers["correlation_id"] = correlation_id
        producer.publish(message, exchange="", routing_key=queue, serializer="json", headers=headers, **properties)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (KombuError, RedisError, OSError) as error:
            self.close()
            raise BrokerUnavailableError(f"Redis is away: {error}") from error


def _task_id(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    try:
        # of a message with several chunks, the first
        return str(json.loads(raw)["headers"]["id"]).partition("~")[0]
    except (ValueError, KeyError, TypeError):  # not a message of ours: a worker will say so
        return None
