"""Messages that no task can be made of: found in the main process of a node, kept as dead letters, never run.

Three doors, each for what the one before could not see. The channel meets bytes that are no message at all, or too
many of them. The consumer meets messages that are not ours: another task, another content type, headers or
arguments of the wrong shape. The task itself (`workers.tasks`) meets a body that is no chunk. The main process has no
database, so it sends a small control task, and a slot stores the letter.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from queue import Empty
from typing import Annotated, Any

import structlog
from celery.worker.consumer import Consumer
from kombu.transport import redis as redis_transport
from kombu.transport import virtual
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError
from redis.exceptions import DataError, RedisError

from app.broker import DEAD_LETTER_TASK, Publisher
from app.domain.base import UtcDatetime, explain
from app.errors import BrokerUnavailableError, MessageError
from app.storage.dead_letters import storable
from workers.unacked import Unacked

log = structlog.get_logger()

#: Longest message that is read, bytes as Redis holds it: forty times a message of the most jobs.
MOST_BYTES = 1_048_576

#: Deepest nesting of a message, levels. A chunk has five; a message that cannot be handed to a slot because it nests
#: too deeply would take the slot with it.
MOST_LEVELS = 30

#: Opening brackets from which on a body is walked: fewer cannot nest too deeply. A chunk of 32 jobs has 40.
WALKED_FROM = 100

#: Characters of a message that are logged when it could not be sent to be stored.
LOGGED = 500

#: Tells of a message that is refused: why, and the message as text. Raises BrokerUnavailableError.
Refuse = Callable[[str, str], None]

_Seconds = Annotated[float, Field(gt=0)]


class Headers(BaseModel):
    """What Celery reads of a message's headers before the task runs; anything else is passed on unread."""

    model_config = ConfigDict(frozen=True)

    task: StrictStr
    id: Annotated[StrictStr, Field(min_length=1, max_length=255)]
    shadow: StrictStr | None = None
    retries: StrictInt | None = None
    timelimit: tuple[_Seconds | None, _Seconds | None] = (None, None)
    eta: UtcDatetime | None = None
    expires: UtcDatetime | None = None
    argsrepr: StrictStr | None = None
    kwargsrepr: StrictStr | None = None
    root_id: StrictStr | None = None
    parent_id: StrictStr | None = None
    group: StrictStr | None = None
    ignore_result: bool | None = None
    stamped_headers: Annotated[list[Any], Field(max_length=0)] | None = None


def build_consumer(publisher: Callable[[], Publisher]) -> type[Consumer]:
    """Build the Consumer class of this node.

    Args:
        publisher: returns the main process's own publisher.
    """

    def refuse(reason: str, text: str) -> None:
        log.error("message refused", reason=reason)
        body = {"reason": storable(reason), "body": storable(text)}
        publisher().send_control(DEAD_LETTER_TASK, body, task_id=f"letter.{uuid.uuid4().hex}")

    transport = build_transport(refuse)

    class CheckingConsumer(Consumer):  # type: ignore[misc]  # Celery ships no types
        """Hands Celery only messages that it can make a task of; the others are kept and dropped."""

        def connection_for_read(self, heartbeat: Any = None) -> Any:
            connection = self.app.connection_for_read(heartbeat=heartbeat)
            connection.get_transport_cls = lambda: transport  # its name stays that of the broker in logs
            return self.ensure_connected(connection)

        def create_task_handler(self, **options: Any) -> Callable[[Any], Any]:
            receive = super().create_task_handler(**options)
            farthest = timedelta(seconds=self.app.conf.broker_transport_options["visibility_timeout"])
            passing = _of_broker((*self.connection_errors, *self.channel_errors))

            def check_and_receive(message: Any) -> Any:
                try:
                    check(message, self.strategies, farthest)
                    return receive(message)
                except passing:
                    raise
                except MessageError as error:
                    self._drop(message, str(error))
                except Exception as error:  # whatever else a message makes Celery do must not end the node
                    self._drop(message, f"{type(error).__name__}: {error}")

            return check_and_receive

        def on_decode_error(self, message: Any, exc: Exception) -> None:
            self._drop(message, f"cannot be decoded: {exc}")

        def on_invalid_task(self, _body: Any, message: Any, exc: Exception) -> None:
            self._drop(message, f"not a task: {exc}")

        def _drop(self, message: Any, reason: str) -> None:
            try:
                refuse(reason, show(message))
            except BrokerUnavailableError as away:
                # not acknowledged: it comes again, and is refused again, when the broker is back
                log.warning("a refused message could not be kept", reason=str(away))
                return
            if not message.acknowledged:
                message.reject_log_error(log, self.connection_errors)

    return CheckingConsumer


def check(message: Any, tasks: Mapping[str, object], farthest: timedelta) -> None:
    """Check that Celery can make a task of a message, before it tries.

    Args:
        message: as kombu delivers it; its body is decoded here, once for all.
        tasks: names of the tasks that the node knows.
        farthest: how far ahead a message may ask to be run. What lies further waits in memory only to be delivered
            again and again.

    Raises:
        MessageError: what is wrong with it.
    """
    if message.content_type != "application/json" or (message.content_encoding or "").lower() != "utf-8":
        found = f"{message.content_type!r} in {message.content_encoding!r}"
        raise MessageError(f"expected 'application/json' in 'utf-8', found {found:.200}")
    try:
        headers = Headers.model_validate(message.headers)
    except ValidationError as error:
        raise MessageError(f"headers that are not a task's: {explain(error):.2000}") from error
    if headers.task not in tasks or headers.task.startswith("celery."):
        raise MessageError(f"expected a task of this fleet, found {headers.task!r:.200}")
    if headers.eta is not None and headers.eta - datetime.now(UTC) > farthest:
        raise MessageError(f"expected to be run within {farthest}, found {headers.eta}")
    _check_body(message.payload)
    _check_nesting([message.headers, message.properties])
    if not isinstance(message.body, bytes) or message.body.count(b"[") + message.body.count(b"{") > WALKED_FROM:
        _check_nesting([message.payload])


def _check_body(payload: object) -> None:
    match payload:
        case [list(), dict(), None | dict() as embedded]:
            if any((embedded or {}).values()):
                raise MessageError("expected a task that calls nothing else, found callbacks, a chain or a chord")
        case _:
            raise MessageError("expected arguments, keyword arguments and options, found another body")


def _check_nesting(level: list[Any]) -> None:
    for _ in range(MOST_LEVELS):
        nodes = (node.values() if isinstance(node, dict) else node for node in level)
        level = [child for children in nodes for child in children if isinstance(child, list | dict)]
        if not level:
            return
    raise MessageError(f"expected at most {MOST_LEVELS} levels of nesting, found more")


def show(message: Any) -> str:
    """Return a message as text, its body readable; cut, because a letter keeps only the beginning."""
    body = message.body
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        around = json.dumps({"content_type": message.content_type, "headers": message.headers})
    except (TypeError, ValueError, RecursionError):
        around = "(headers that cannot be shown)"
    return f"{text[: MOST_BYTES // 256]}\n{around}"


def _of_broker(errors: Iterable[type[Exception]]) -> tuple[type[Exception], ...]:
    # kombu counts KeyError among the errors of a connection; here it is what a message without a key makes
    return tuple(error for error in errors if error is not KeyError)


def build_transport(refuse: Refuse) -> type[Any]:
    """Build kombu's Redis transport with a channel that survives anything that lies in a queue."""

    class Message(virtual.Message):  # type: ignore[misc]  # kombu ships no types
        def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
            # kombu would unpack a compressed body here, however large it becomes; we never compress
            if (payload.get("headers") or {}).get("compression"):
                raise MessageError("expected a message as it is, found a compressed one")
            super().__init__(payload, channel=channel, **options)

    class Channel(redis_transport.Channel):  # type: ignore[misc]  # kombu ships no types
        _answer: tuple[bytes, bytes] | None = None

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.client.set_response_callback("BRPOP", self._weigh)

        def _weigh(self, answer: Any, **_: Any) -> tuple[bytes, bytes] | None:
            self._answer = tuple(answer) if answer else None
            if self._answer is not None and len(self._answer[1]) > MOST_BYTES:
                self._refuse(f"expected at most {MOST_BYTES:,} bytes, found {len(self._answer[1]):,}")
                return None
            return self._answer

        def _brpop_read(self, **options: Any) -> Any:
            passing: tuple[type[BaseException], ...] = (Empty, MemoryError, *_of_broker(self.connection_errors))
            self._forget()
            try:
                return super()._brpop_read(**options)
            except passing:
                raise
            except Exception as error:
                # a DataError is about what the message made us send; any other error of Redis is about Redis
                if self._answer is None or (isinstance(error, RedisError) and not isinstance(error, DataError)):
                    raise
                known = isinstance(error, MessageError)
                self._refuse(str(error) if known else f"not a message: {type(error).__name__}: {error}")
                raise Empty from error

        def close(self) -> None:
            try:
                super().close()
            finally:
                if self._qos is not None:
                    self._qos.keep()

        def _forget(self) -> None:
            self._answer = None

        def _refuse(self, reason: str) -> None:
            key, raw = self._answer or (b"", b"")
            queue = key.decode(errors="replace").removeprefix(self.global_keyprefix)
            text = raw[: MOST_BYTES // 64].decode(errors="replace")
            try:
                refuse(f"{reason:.2000} (queue {queue})", text)
            except BrokerUnavailableError as away:
                # it is off its queue already, so the log is the last place for it
                log.error("a refused message could not be kept", reason=str(away), message=text[:LOGGED])

    Channel.Message, Channel.QoS = Message, type("Unacked", (Unacked,), {"left": {}})
    return type("Transport", (redis_transport.Transport,), {"Channel": Channel})
