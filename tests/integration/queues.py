"""A consumer without a worker: takes messages from the queues of a deployment and shows what was in them."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty
from typing import Any

from kombu import Connection

from app.broker import QUEUES, create_celery
from app.domain.jobs import Bundle, Chunk
from app.settings import Settings


class Queues:
    """The queues of a deployment, one connection."""

    def __init__(self, settings: Settings) -> None:
        self._app = create_celery(settings)
        self._connection: Connection = self._app.connection_for_read()
        self._queues = {name: self._connection.SimpleQueue(self._app.amqp.queues[name]) for name in QUEUES}

    def close(self) -> None:
        """Give the connection back."""
        for queue in self._queues.values():
            queue.close()
        self._connection.release()

    def take(self, name: str) -> Any | None:
        """Take the oldest message of a queue and acknowledge it; None when there is none."""
        try:
            message = self._queues[name].get(block=False)
        except Empty:
            return None
        message.ack()
        return message

    def drain(self) -> Iterator[Any]:
        """Take every message, urgent queues first."""
        for name in QUEUES:
            while (message := self.take(name)) is not None:
                yield message

    def chunks(self) -> list[Chunk]:
        """Take every message and read it as a worker does."""
        return [chunk for message in self.drain() for chunk in read(message)]


def read(message: Any) -> tuple[Chunk, ...]:
    """Read a message as a worker does."""
    (body,), kwargs, _ = message.payload
    assert kwargs == {}
    return Bundle.from_wire(body).chunks


def jobs_of(chunks: list[Chunk]) -> list[tuple[int, int]]:
    """Return every (dispatch, strategy) in order; a repeated one shows."""
    return sorted((chunk.dispatch_id, key.strategy_id) for chunk in chunks for key in chunk.jobs)
