"""Messages that make no sense, thrown at a real worker: each is kept once, none ends the node or comes again."""

from __future__ import annotations

import base64
import json
import pickle
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Deploy
from tests.integration.stage import Stage, Worker, staging
from tests.waiting import wait_until

Message = dict[str, Any]


@pytest.fixture(scope="module")
def stage(deploy: Deploy) -> Iterator[Stage]:
    with staging(deploy) as stage:
        stage.add("good")
        yield stage


@pytest.fixture(scope="module")
def worker(stage: Stage) -> Iterator[Worker]:
    with stage.worker(slots=1) as worker:
        yield worker


@pytest.fixture(scope="module")
def good(stage: Stage) -> Message:
    """A message as the producer sends it, taken off its queue before the worker starts."""
    stage.publisher.publish(stage.write())
    message: Message = json.loads(stage.raw()[0])
    stage.redis.delete(f"{stage.prefix}normal")
    return message


@pytest.fixture(scope="module", autouse=True)
def in_order(good: Message, worker: Worker) -> None:
    """The worker starts after the good message was taken."""


def decoded(message: Message) -> list[Any]:
    body: list[Any] = json.loads(base64.b64decode(message["body"]))
    return body


def with_body(message: Message, body: object) -> Message:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    tag = {"delivery_tag": uuid.uuid4().hex, "delivery_info": {"exchange": "", "routing_key": "normal"}}
    properties = {**message["properties"], **tag}
    return {**message, "body": base64.b64encode(raw).decode(), "properties": properties}


def with_chunk(message: Message, **changes: object) -> Message:
    # fresh: a slot takes a chunk at its word, without asking Postgres what is still missing
    whole = decoded(message)[0][0]
    version = changes.pop("v", whole["v"])
    chunk = {**whole["chunks"][0], "created_us": round(time.time() * 1_000_000), **changes}
    return with_body(message, [[{"v": version, "chunks": [chunk]}], {}, {}])


def with_headers(message: Message, **changes: object) -> Message:
    fresh = with_body(message, decoded(message))
    headers = {**fresh["headers"], **changes}
    return {**fresh, "headers": {name: value for name, value in headers.items() if value is not ...}}


def with_properties(message: Message, **changes: object) -> Message:
    fresh = with_body(message, decoded(message))
    properties = {**fresh["properties"], **changes}
    return {**fresh, "properties": {name: value for name, value in properties.items() if value is not ...}}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


#: What is put into the queue, and what its dead letter says.
GARBAGE: dict[str, tuple[Callable[[Message], Message | str | bytes], str]] = {
    # no message at all
    "empty": (lambda _: b"", "not a message"),
    "binary": (lambda _: bytes(range(256)) * 20, "not a message"),
    "words": (lambda _: "hello", "not a message"),
    "number": (lambda _: "42", "not a message"),
    "null": (lambda _: "null", "not a message"),
    "list": (lambda _: "[1, 2, 3]", "not a message"),
    "object": (lambda _: "{}", "not a message"),
    "half": (lambda good: json.dumps(good)[:200], "not a message"),
    "bomb": (lambda _: nested(200_000), "not a message"),
    "pickle": (lambda good: pickle.dumps(good), "not a message"),
    "huge": (lambda _: b"x" * 5_000_000, "expected at most 1,048,576 bytes, found 5,000,000"),
    "huge body": (lambda good: json.dumps(with_body(good, ["y" * 5_000_000])), "expected at most"),
    "no tag": (lambda good: with_properties(good, delivery_tag=...), "not a message"),
    "tag null": (lambda good: with_properties(good, delivery_tag=None), "expected a delivery tag"),
    "tag object": (lambda good: with_properties(good, delivery_tag={"a": 1}), "expected a delivery tag"),
    "no delivery": (lambda good: with_properties(good, delivery_info=...), "not a message"),
    "properties list": (lambda good: {**good, "properties": [1]}, "not a message"),
    "headers list": (lambda good: {**good, "headers": [1]}, "not a message"),
    "unknown transfer encoding": (lambda good: with_properties(good, body_encoding="rot13"), "not a message"),
    "broken base64": (lambda good: {**with_chunk(good), "body": "a"}, "not a message"),
    "compressed": (lambda good: with_headers(good, compression="zlib"), "compressed"),
    # a message, but not a task of ours
    "no headers": (lambda good: {**with_chunk(good), "headers": {}}, "task"),
    "unknown task": (lambda good: with_headers(good, task="shell.run"), "expected a task of this fleet"),
    "task of celery": (lambda good: with_headers(good, task="celery.map"), "expected a task of this fleet"),
    "task number": (lambda good: with_headers(good, task=7), "headers"),
    "no id": (lambda good: with_headers(good, id=...), "id"),
    "id object": (lambda good: with_headers(good, id={"x": 1}), "id"),
    "limit word": (lambda good: with_headers(good, timelimit=["soon", None]), "timelimit"),
    "limit below zero": (lambda good: with_headers(good, timelimit=[-1, None]), "timelimit"),
    "eta word": (lambda good: with_headers(good, eta="tomorrow"), "eta"),
    "eta far": (lambda good: with_headers(good, eta="2999-01-01T00:00:00+00:00"), "expected to be run within"),
    "shadow list": (lambda good: with_headers(good, shadow=[1]), "shadow"),
    "retries word": (lambda good: with_headers(good, retries="many"), "retries"),
    "content pickle": (
        lambda good: {**with_body(good, pickle.dumps([[], {}, {}])), "content-type": "application/x-python-serialize"},
        "application/x-python-serialize",
    ),
    "content codec": (
        lambda good: {**with_body(good, zlib.compress(b"[]")), "content-encoding": "zlib_codec"},
        "zlib_codec",
    ),
    "body no json": (lambda good: with_body(good, b"\xff\xfe\x00 nonsense"), "decode"),
    "body bomb": (lambda good: with_body(good, nested(100_000).encode()), "recursion"),
    "body object": (lambda good: with_body(good, {"task": "strategies.execute", "id": "1"}), "another body"),
    "body short": (lambda good: with_body(good, [[]]), "another body"),
    "arguments word": (lambda good: with_body(good, ["abc", {}, {}]), "another body"),
    "arguments by list": (lambda good: with_body(good, [[], [], {}]), "another body"),
    "callbacks": (lambda good: with_body(good, [[], {}, {"callbacks": [{"task": "x"}]}]), "calls nothing else"),
    "huge number": (lambda good: with_body(good, b"[[" + b"9" * 5000 + b"], {}, {}]"), "digits"),
    # a task, but not a chunk
    "no argument": (lambda good: with_body(good, [[], {}, {}]), "expected one argument, found 0"),
    "two arguments": (lambda good: with_body(good, [[1, 2], {}, {}]), "expected one argument, found 2"),
    "by name": (lambda good: with_body(good, [[], {"body": 1}, {}]), "1 by name"),
    "argument null": (lambda good: with_body(good, [[None], {}, {}]), "NoneType"),
    "argument nested": (lambda good: with_body(good, f"[[{nested(500)}], {{}}, {{}}]".encode()), "levels of nesting"),
    "header nested": (lambda good: with_headers(good, extra=json.loads(nested(400))), "levels of nesting"),
    "version 0": (lambda good: with_chunk(good, v=0), "expected message version 1"),
    "version future": (lambda good: with_chunk(good, v=99), "expected message version 1"),
    "no jobs": (lambda good: with_chunk(good, jobs=[]), "jobs"),
    "too many jobs": (lambda good: with_chunk(good, jobs=[[1, 1]] * 300), "jobs"),
    "prices below zero": (lambda good: with_chunk(good, ohlcv=[-1, -1, -1, -1, 0]), "message"),
    "time out of range": (lambda good: with_chunk(good, open_ms=10**18), "message"),
    "unknown dispatch": (lambda good: with_chunk(good, dispatch=987_654), "expected dispatch 987654"),
    "unknown dispatch, old": (
        lambda good: with_chunk(good, dispatch=987_654, created_us=0),
        "expected dispatch 987654",
    ),
    "unknown strategy": (lambda good: with_chunk(good, jobs=[[4242, 1]]), "found also [4242]"),
    "neighbour unknown": (lambda good: with_chunk(good, jobs=[[1, 1], [4242, 1]]), "found also [4242]"),
    "dispatch too large": (lambda good: with_chunk(good, dispatch=2**70), "dispatch"),
    "strategy too large": (lambda good: with_chunk(good, jobs=[[2**40, 1]]), "jobs"),
    "symbol with NUL": (lambda good: with_chunk(good, symbol="A\x00B"), "symbol"),
    "half a character": (lambda good: with_chunk(good, v="\ud800"), "expected message version 1"),
    "bury nonsense": (lambda good: with_body(with_headers(good, task="fleet.bury"), [[{}], {}, {}]), "to bury"),
    "letter nonsense": (
        lambda good: with_body(with_headers(good, task="fleet.dead_letter"), [[{"reason": 1}], {}, {}]),
        "expected an object with texts",
    ),
    "canary nonsense": (lambda good: with_body(with_headers(good, task="fleet.canary"), [[7], {}, {}]), "with texts"),
}


def letters(stage: Stage) -> list[Any]:
    return stage.ask("SELECT reason, body FROM dead_letters ORDER BY id")


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_kept_once_and_gone(stage: Stage, worker: Worker, good: Message, name: str) -> None:
    build, reason = GARBAGE[name]
    before = len(letters(stage))
    made = build(good)
    stage.push(json.dumps(made) if isinstance(made, dict) else made)
    kept = wait_until(lambda: letters(stage)[before:], f"the letter of {name}", 10)
    assert len(kept) == 1 and reason in kept[0].reason
    assert not stage.raw()
    wait_until(lambda: stage.unacked() == 0, "nothing is held, so nothing is delivered again")
    assert worker.is_alive()


def test_nothing_was_recorded_and_the_worker_still_works(stage: Stage, worker: Worker) -> None:
    assert stage.ask("SELECT count(*) FROM outcomes")[0][0] == 0
    sent = stage.write()
    stage.publisher.publish(sent)
    number = sent[0].chunk.dispatch_id
    wait_until(lambda: stage.statuses(number), "an ordinary chunk lands")
    assert "Traceback" not in worker.log()


def test_many_at_once(stage: Stage, worker: Worker) -> None:
    before = len(letters(stage))
    stage.redis.lpush(f"{stage.prefix}high", *[f"garbage {number}" for number in range(300)])
    wait_until(lambda: len(letters(stage)) - before >= 300, "every one is kept", 60)
    assert len(letters(stage)) - before == 300
    assert worker.is_alive()


def test_a_late_message_is_no_garbage(stage: Stage, worker: Worker, good: Message) -> None:
    before = len(letters(stage))
    soon = (datetime.now(UTC) + timedelta(milliseconds=50)).isoformat()
    stage.push(json.dumps(with_headers(good, eta=soon)))
    number = decoded(good)[0][0]["chunks"][0]["dispatch"]
    wait_until(lambda: stage.statuses(number), "it lands")
    assert len(letters(stage)) == before
