"""Worker nodes from afar: canaries through their own queues, and Celery's remote control."""

from __future__ import annotations

from celery import Celery
from celery.utils.nodenames import worker_direct
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from app.broker import CANARY_TASK, Publisher
from app.errors import BrokerUnavailableError


class Fleet:
    """What maintenance can do to a node.

    Args:
        app: Celery's.
        publisher: to the broker.
    """

    def __init__(self, app: Celery, publisher: Publisher) -> None:
        self._app = app
        self._publisher = publisher

    def send_canary(self, node: str, number: str) -> None:
        """Send a canary through a node's own queue; its answer is a mark in the node's row.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        queue = worker_direct(node).name
        self._publisher.send_control(CANARY_TASK, {"node": node}, task_id=f"canary.{node}.{number}", queue=queue)

    def kill_chunk(self, node: str, task_id: str) -> None:
        """Kill the slot that runs a message. Celery acknowledges it and refuses its id on that node for hours.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        self._broadcast("revoke", node, {"task_id": task_id, "terminate": True, "signal": "SIGKILL"})

    def shut_down(self, node: str) -> None:
        """Ask a node to end: what watches over it starts it again.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        self._broadcast("shutdown", node, {})

    def forget(self, node: str) -> None:
        """Remove the queue of a node that is gone, and the canary that may wait in it. Idempotent.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        try:
            with self._app.connection_for_write() as connection:
                queue = worker_direct(node).bind(connection.default_channel)
                queue.declare()  # a channel removes only what it knows
                queue.delete()
        except (KombuError, RedisError, OSError) as error:
            raise BrokerUnavailableError(f"Redis is away: {error}") from error

    def _broadcast(self, command: str, node: str, arguments: dict[str, object]) -> None:
        try:
            self._app.control.broadcast(command, arguments=arguments, destination=[node], reply=False)
        except (KombuError, RedisError, OSError) as error:
            raise BrokerUnavailableError(f"Redis is away: {error}") from error
