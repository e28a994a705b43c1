"""Which messages become tasks, and which never reach Celery."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import MessageError
from workers.letters import MOST_LEVELS, check, show

TASKS = {"strategies.execute": None, "celery.map": None}
FARTHEST = timedelta(minutes=15)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def message(**changes: Any) -> SimpleNamespace:
    headers = {"task": "strategies.execute", "id": "1.2", "timelimit": [5.0, None], "retries": 0, "eta": None}
    values: dict[str, Any] = {
        "headers": headers | changes.pop("headers", {}),
        "properties": {"delivery_tag": "x"},
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "payload": [[{}], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}],
        "body": b"[]",
    }
    return SimpleNamespace(**values | changes)


def refused(**changes: Any) -> str:
    with pytest.raises(MessageError) as error:
        check(message(**changes), TASKS, FARTHEST)
    return str(error.value)


def test_ours_passes() -> None:
    check(message(), TASKS, FARTHEST)
    check(message(payload=[[1], {"named": 1}, None]), TASKS, FARTHEST)


def test_a_retry_in_time_passes_and_one_far_ahead_does_not() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    check(message(headers={"eta": soon.isoformat()}), TASKS, FARTHEST)
    assert "within 0:15:00" in refused(headers={"eta": (soon + FARTHEST).isoformat()})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"content_type": "application/x-python-serialize"}, "application/json"),
        ({"content_encoding": "zlib_codec"}, "utf-8"),
        ({"content_encoding": None}, "utf-8"),
        ({"headers": {"task": "other"}}, "a task of this fleet"),
        ({"headers": {"task": "celery.map"}}, "a task of this fleet"),
        ({"headers": {"id": ""}}, "id"),
        ({"headers": {"timelimit": [0, None]}}, "timelimit"),
        ({"headers": {"eta": "2024-01-01T00:00:00"}}, "eta"),
        ({"headers": {"stamped_headers": ["x"]}}, "stamped_headers"),
        ({"payload": [[], {}, {"chord": {"task": "x"}}]}, "calls nothing else"),
        ({"payload": "abc"}, "another body"),
        ({"payload": [[], {}]}, "another body"),
    ],
)
def test_what_is_not_ours_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert reason in refused(**changes)


def test_nesting_is_bounded_wherever_it_is() -> None:
    nested: Any = 1
    for _ in range(MOST_LEVELS):
        nested = [nested]
    deep = {"payload": [[nested], {}, {}], "body": b"[" * 101}
    for changes in (deep, {"headers": {"x": nested}}, {"properties": {"x": nested}}):
        assert "levels of nesting" in refused(**changes)
    check(message(payload=[[[[[[1]]]]], {}, {}]), TASKS, FARTHEST)


@given(headers=JSON, payload=JSON, properties=JSON)
def test_nothing_else_is_ever_raised(headers: Any, payload: Any, properties: Any) -> None:
    strange = message(payload=payload, properties=properties if isinstance(properties, dict) else {})
    strange.headers = headers if isinstance(headers, dict) else {}
    with pytest.raises(MessageError):
        check(strange, TASKS, FARTHEST)
    assert isinstance(show(strange), str)


def test_a_message_is_shown_however_strange_it_is() -> None:
    assert show(message(body=b"\xff\x00")).startswith("�\x00")
    assert "cannot be shown" in show(message(headers={"x": {1, 2}}))
