"""What a node has fetched and not yet acknowledged: kombu's book of it in Redis, kept with half as many round trips.

kombu builds a client and a transaction for each message it fetches and for each it acknowledges, and waits for both.
Here an acknowledgement waits a moment for company, and travels with the next fetched message if there is one. A node
that dies in that moment has a message delivered again that has landed, which changes nothing. A fetched message is
noted before it is handed over; one that could not be, because Redis went away, is given back when it is there again.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from time import time
from typing import Any, ClassVar

from kombu.asynchronous.hub import get_event_loop
from kombu.transport import redis as redis_transport
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

from app.errors import MessageError

#: Seconds an acknowledgement waits for company.
WAITS_S = 0.005


class Unacked(redis_transport.QoS):  # type: ignore[misc]  # kombu ships no types
    """Messages that are fetched and not acknowledged, of one connection."""

    #: Messages that were fetched and could not be noted, because Redis went away, by tag: the next connection gives
    #: them back. Each node has its own.
    left: ClassVar[dict[str, str]] = {}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._fetched: dict[str, str] = {}
        self._done: list[str] = []

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was fetched, and tell of those that were acknowledged.

        Raises:
            MessageError: Redis could not note it under this tag.
        """
        if not (isinstance(delivery_tag, str) and delivery_tag.isascii()):
            raise MessageError(f"expected a delivery tag, found {delivery_tag!r:.200}")
        delivery = message.delivery_info
        self._fetched[delivery_tag] = dumps([message._raw, delivery["exchange"], delivery["routing_key"]])
        self.flush()
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, within moments."""
        virtual.QoS.ack(self, delivery_tag)
        self._done.append(delivery_tag)
        if len(self._done) == 1:
            self._flush_soon()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back what is not acknowledged, at the end of the connection."""
        with suppress(*self.channel.connection_errors):  # it is delivered again then, and changes nothing
            self.flush()
        self.keep()
        super().restore_unacked_once(stderr)

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Give back what others, or an earlier connection, have left."""
        if self.left:
            pipe = self._client.pipeline()
            for raw in self.left.values():
                self.channel._do_restore_message(*loads(raw), pipe)
            pipe.execute()
            self.left.clear()
        super().restore_visible(*arguments, **options)

    def keep(self) -> None:
        """Keep for the next connection what Redis could not be told of. Idempotent."""
        self.left.update(self._fetched)
        for tag in self._fetched:
            self._delivered.pop(tag, None)
        self._fetched = {}

    def restore_unacked(self, client: Any = None) -> Any:
        """Give back what is not acknowledged.

        kombu would make a client for it, of a connection that it has taken apart by then: the error ends the node.
        """
        return super().restore_unacked(client or self._client)

    def flush(self) -> None:
        """Tell Redis what was fetched and what was acknowledged."""
        fetched, done = self._fetched, self._done
        if not fetched and not done:
            return
        pipe = self._client.pipeline(transaction=False)
        if fetched:
            # the index first: what only the index knows is skipped when it is to be restored, the reverse would be lost
            now = time()
            pipe.zadd(self.unacked_index_key, dict.fromkeys(fetched, now)).hset(self.unacked_key, mapping=fetched)
        if done:
            pipe.hdel(self.unacked_key, *done).zrem(self.unacked_index_key, *done)
        pipe.execute()
        self._fetched, self._done = {}, []  # only now: what could not be told is told at the end of the connection

    @cached_property
    def _client(self) -> Any:
        return self.channel._create_client()

    def _flush_soon(self) -> None:
        loop = get_event_loop()
        if loop is None:
            self.flush()
        else:
            loop.call_later(WAITS_S, self._flush_if_open)

    def _flush_if_open(self) -> None:
        if not self.channel.closed:
            self.flush()
