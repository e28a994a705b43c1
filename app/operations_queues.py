"""The queues as an operator handles them: how deep, how old, emptied; and what running nodes are told."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis import Redis
from redis.exceptions import RedisError

from app.broker import CONTROL_QUEUE, EXECUTE_TASK, QUEUES
from app.domain.jobs import Bundle, Chunk
from app.errors import BrokerUnavailableError, MessageError

#: Messages taken off a queue in one round trip: about 1 MB of chunks.
BATCH = 250


#: A message as Redis holds it; a client that decodes answers would return text.
Raw = bytes | str


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits in one queue."""

    queue: str
    depth: int
    """Messages waiting, not counting those that workers hold."""
    oldest_s: float | None
    """Seconds since the dispatch of the message that has waited longest; None when empty or not a chunk."""
    oldest_job: str | None
    """Its task id."""


class Queues:
    """The queues of one broker. Every call opens a connection of its own: operators ask seldom.

    Args:
        app: the Celery application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def look(self) -> list[QueueState]:
        """Return what waits in each queue, the most urgent first.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        names = (CONTROL_QUEUE, *QUEUES)
        with self._client() as (client, prefix):
            pipeline = client.pipeline(transaction=False)
            for name in names:
                pipeline.llen(prefix + name)
                pipeline.lindex(prefix + name, -1)
            answers = pipeline.execute()
        return [_describe(name, *answers[2 * n : 2 * n + 2]) for n, name in enumerate(names)]

    def take(self, queue: str) -> Iterator[list[Raw]]:
        """Take what waits in a queue now off it, oldest first, in batches.

        A message that is taken and not dealt with is not lost: the ledger knows what is missing.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._client() as (client, prefix):
            left = client.llen(prefix + queue)
            while left > 0 and (batch := client.rpop(prefix + queue, min(left, BATCH))):
                taken = batch if isinstance(batch, list) else [batch]
                left -= len(taken)
                yield taken

    def put_back(self, queue: str, messages: Sequence[Raw]) -> None:
        """Put messages that were taken behind everything else in their queue.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        if messages:
            with self._client() as (client, prefix):
                client.lpush(prefix + queue, *messages)

    def revoke(self, jobs: Sequence[str]) -> None:
        """Tell every node that these jobs are taken back, and to end the slot that runs one of them alone.

        Args:
            jobs: their ids.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        if jobs:
            with self._connection() as connection:
                self._app.control.revoke(list(jobs), terminate=True, connection=connection)

    def ask(
        self, node: str, command: str, arguments: Mapping[str, object], *, within_s: float
    ) -> dict[str, Any] | None:
        """Give one node a control command and return its answer; None when it does not answer in time.

        Args:
            node: its name.
            command: of Celery's remote control.
            arguments: of the command.
            within_s: seconds to wait for the answer.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._connection() as connection:
            control, options = self._app.control, {"reply": True, "timeout": within_s, "connection": connection}
            answers = control.broadcast(command, dict(arguments), destination=[node], **options)
            return next((answer[node] for answer in answers or () if node in answer), None)

    @contextmanager
    def _connection(self) -> Iterator[object]:
        try:
            with self._app.connection_for_write() as connection:
                yield connection
        except (KombuError, RedisError, OSError) as error:
            raise BrokerUnavailableError(f"Redis is away: {error}") from error

    @contextmanager
    def _client(self) -> Iterator[tuple[Redis, str]]:
        # kombu's own client puts its prefix before the keys of some commands only, so keys are written out here
        with self._connection() as connection:
            channel = connection.default_channel  # type: ignore[attr-defined]  # kombu ships no types
            yield Redis(connection_pool=channel.pool), channel.global_keyprefix


def read_chunks(raw: Raw) -> tuple[Chunk, ...] | None:
    """Return the chunks that a raw message carries; None when it carries anything else."""
    try:
        message = json.loads(raw)
        if message["headers"]["task"] != EXECUTE_TASK:
            return None
        arguments, _, _ = json.loads(base64.b64decode(message["body"]))
        return Bundle.from_wire(arguments[0]).chunks
    except (MessageError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None


def _describe(name: str, depth: int, oldest: Raw | None) -> QueueState:
    chunks = None if oldest is None else read_chunks(oldest)
    if not chunks:
        return QueueState(name, depth, None, None)
    age = datetime.now(UTC) - chunks[0].created_at
    return QueueState(name, depth, age.total_seconds(), Bundle(chunks=chunks).task_id)
