"""The broker: the Celery application, the queues, their fairness, and how chunks are published.

Redis only carries. Publishing may be repeated at any time: ids are deterministic and recording is idempotent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.utils.nodenames import anon_nodename
from kombu import Connection, Producer, Queue
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError

from app.domain.costs import LEAST_WORK_MS, Room
from app.domain.jobs import Bundle, Chunk
from app.domain.queues import Waiting
from app.domain.strategies import Priority
from app.errors import BrokerUnavailableError
from app.heads import read_waiting
from app.settings import Settings

#: The one task that live work uses.
EXECUTE_TASK = "strategies.execute"
#: Tasks of the fleet itself, on the control queue.
BURY_TASK, DEAD_LETTER_TASK, CANARY_TASK = "fleet.bury", "fleet.dead_letter", "fleet.canary"
#: The gate's task, which travels with jobs of low priority: it may take minutes.
VERIFY_TASK = "fleet.verify"
#: The task of batch runs: a ticket, which makes a slot work on a run's units for about a second.
WORK_TASK = "runs.work"

#: Queues of jobs, in order of urgency.
QUEUES: tuple[str, ...] = tuple(priority.value for priority in Priority)
#: Queue of the fleet's own small tasks: what a dead slot leaves behind, canaries.
CONTROL_QUEUE = "control"
#: Queue of tickets of batch runs, which anything live passes.
BATCH_QUEUE = "batch"
#: Turns of the control queue in a full cycle: its few messages never wait behind jobs.
CONTROL_WEIGHT = 1000
#: Hard limit of a control task, seconds.
CONTROL_LIMIT_S = 30.0

#: How many times the work of a message a message of slow chunks may hold, when there are many of them: what a message
#: costs by itself is a fifth of a job of 10 ms. They are recorded one by one all the same.
SLOW_TOGETHER = 5

#: Priority, and whether its chunks are slow.
_Lane = tuple[Priority, bool]

#: Messages of one pipeline; large enough that the round trip disappears, small enough to bound memory.
PIPELINE_SIZE = 500


class WeightedCycle:
    """Order in which a consumer looks at its queues: each has turns by weight, none starves but those of weight 0.

    kombu asks `consume` for the order before every blocking pop and tells `rotate` which queue answered.
    A queue with turns left comes before one without; within either group the urgent one is first. When a
    queue without turns answers, everything with turns was empty, so a new round begins. A queue of weight 0 never has
    any: it answers when nothing else waits.
    """

    def __init__(self, weights: dict[str, int], items: Iterable[str] | None = None) -> None:
        self._weights = weights
        self._items: list[str] = []
        self._turns: dict[str, int] = {}
        self.update(items or ())

    def update(self, items: Iterable[str]) -> None:
        """Take over the queues now consumed from."""
        urgency = list(self._weights)
        self._items = sorted(items, key=lambda queue: urgency.index(queue) if queue in urgency else len(urgency))
        self._refill()

    def consume(self, count: int) -> list[str]:
        """Return the queues in the order in which they should be asked."""
        with_turns = [queue for queue in self._items if self._turns[queue] > 0]
        without = [queue for queue in self._items if self._turns[queue] <= 0]
        return (with_turns + without)[:count]

    def rotate(self, last_used: str) -> str:
        """Note that a queue answered: it has one turn less."""
        if last_used in self._turns:
            if self._turns[last_used] <= 0:
                self._refill()
            self._turns[last_used] = max(0, self._turns[last_used] - 1)
            if not any(self._turns.values()):
                self._refill()
        return last_used

    def _refill(self) -> None:
        self._turns = {queue: self._weights.get(queue, 1) for queue in self._items}


@dataclass(frozen=True, slots=True)
class QueueOrder:
    """Makes the `WeightedCycle` of a channel; kombu calls it with nothing or with queues.

    A class and not a `functools.partial`: a node that is asked for its statistics sends its transport options as JSON.
    """

    weights: dict[str, int]

    def __call__(self, items: Iterable[str] | None = None) -> WeightedCycle:
        """Make an order."""
        return WeightedCycle(self.weights, items)

    def __json__(self) -> dict[str, int]:
        """Say what it is to kombu's JSON encoder."""
        return self.weights


def create_celery(settings: Settings) -> Celery:
    """Build the Celery application; nothing connects yet.

    Raises:
        ConfigurationError: no broker is known.
    """
    app = Celery("candlefleet", broker=settings.broker_dsn, set_as_current=False)
    app.conf.update(**_messages(settings), **_execution(settings), **_transport(settings))
    return app


def _messages(settings: Settings) -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_queues": [Queue(name, routing_key=name) for name in (CONTROL_QUEUE, *QUEUES, BATCH_QUEUE)],
        "task_default_queue": Priority.NORMAL.value,
        "task_create_missing_queues": False,
        "worker_send_task_events": settings.metrics,
        "enable_utc": True,
    }


def _execution(settings: Settings) -> dict[str, Any]:
    worker = settings.worker
    return {
        "task_acks_late": True,
        # a queue of each node's own: a canary through it tells a deaf node from a quiet one
        "worker_direct": True,
        "worker_concurrency": worker.slots or None,
        "worker_prefetch_multiplier": worker.prefetch,
        "worker_max_tasks_per_child": worker.max_jobs_per_slot or None,
        "worker_max_memory_per_child": worker.slot_memory_mb * 1024 or None,  # KiB
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_hijack_root_logger": False,
        # a slot imports numpy and TA-Lib before the fork, but a busy machine may still need seconds to fork
        "worker_proc_alive_timeout": 30.0,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
    }


def queue_weights(settings: Settings) -> dict[str, int]:
    """Return the turns of each queue in a full cycle, the most urgent first."""
    live = dict(zip(QUEUES, settings.broker.queue_weights, strict=True))
    return {CONTROL_QUEUE: CONTROL_WEIGHT, **live, BATCH_QUEUE: 0}


def _transport(settings: Settings) -> dict[str, Any]:
    broker, weights = settings.broker, queue_weights(settings)
    return {
        "broker_transport_options": {
            # one Redis list per queue: a strategy's priority is its queue, not a sub-list of it
            "priority_steps": [0],
            "queue_order_strategy": QueueOrder(weights),
            "visibility_timeout": broker.visibility_timeout_s,
            "unacked_restore_interval": broker.restore_interval_s,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "global_keyprefix": broker.key_prefix,
        }
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """A chunk ready to travel: with the queue it goes to and what operators see of it."""

    chunk: Chunk
    label: str | None
    """Shown in Flower as the task's name: the strategy's, or None for the task's own."""
    arguments: str
    """Shown in Flower as the task's arguments."""
    hard_limit_s: float
    """Seconds after which the slot that runs the chunk is killed."""
    countdown_s: float | None = None
    """Seconds to wait before the chunk may run; for retries and throttled strategies."""
    alone: bool = False
    """Whether it must not share its message: one job of it is not known to be harmless."""
    cost_ms: float = 0.0
    """Estimated time of its jobs together."""


def envelope(
    chunk: Chunk,
    *,
    names: str,
    label: str | None,
    hard_limit_s: float,
    countdown_s: float | None = None,
    alone: bool = False,
    cost_ms: float = 0.0,
) -> Envelope:
    """Build an envelope.

    Args:
        chunk: what travels.
        names: of its strategies, for people.
        label: the task's name in Flower; None leaves the task's own.
        hard_limit_s: seconds after which the slot is killed.
        countdown_s: seconds to wait before it may run.
        alone: whether it must not share its message.
        cost_ms: estimated time of its jobs together.
    """
    candle = chunk.candle
    arguments = f"{candle.symbol} {candle.timeframe} {candle.open_time:%Y-%m-%dT%H:%MZ}: {names}"
    return Envelope(chunk, label, arguments, hard_limit_s, countdown_s, alone, cost_ms)


def pack(envelopes: Sequence[Envelope], room: Room) -> Iterator[list[Envelope]]:
    """Group chunks into messages: neighbours of one priority and one attempt, as many as there is room for.

    Keeps their order. A retry travels apart from other candles' retries: it has its own time to wait.
    """
    fullest = _fullest(envelopes, room)
    group: list[Envelope] = []
    jobs, work_ms = 0, 0.0
    for envelope in envelopes:
        size, cost_ms = len(envelope.chunk.jobs), envelope.cost_ms
        is_full = jobs + size > room.jobs or work_ms + cost_ms > fullest[_lane(envelope, room)]
        if group and (is_full or not _may_share(group[-1], envelope, room)):
            yield group
            group, jobs, work_ms = [], 0, 0.0
        group.append(envelope)
        jobs, work_ms = jobs + size, work_ms + cost_ms
    if group:
        yield group


def _fullest(envelopes: Sequence[Envelope], room: Room) -> dict[_Lane, float]:
    """Return the most work in a message of each lane, ms."""
    total_ms: Counter[_Lane] = Counter()
    for envelope in envelopes:
        total_ms[_lane(envelope, room)] += envelope.cost_ms  # type: ignore[assignment]  # counts may be fractions
    most_ms = {is_slow: room.work_ms * (SLOW_TOGETHER if is_slow else 1) for is_slow in (False, True)}
    return {lane: min(most_ms[lane[1]], max(LEAST_WORK_MS, work / room.slots)) for lane, work in total_ms.items()}


def _lane(envelope: Envelope, room: Room) -> _Lane:
    # a slow chunk shares with slow ones: those that are over in no time do not wait for it
    return envelope.chunk.priority, envelope.cost_ms > room.work_ms / 2


def _may_share(before: Envelope, after: Envelope, room: Room) -> bool:
    if any(each.alone or each.countdown_s is not None for each in (before, after)):
        return False
    if _lane(before, room) != _lane(after, room) or before.chunk.attempt != after.chunk.attempt:
        return False
    # quick chunks of one dispatch were parted on purpose
    return _lane(before, room)[1] or before.chunk.dispatch_id != after.chunk.dispatch_id


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
