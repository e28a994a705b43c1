import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.domain.candles import Candle, Timeframe
from app.domain.jobs import Bundle, Chunk, JobKey, Signal, job_id
from app.domain.strategies import Priority
from app.errors import MessageError

NOW = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)

prices = st.floats(min_value=1e-9, max_value=1e9)
opens = st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive


@st.composite
def chunks(draw):
    frame = draw(st.sampled_from(list(Timeframe)))
    values = sorted([draw(prices) for _ in range(4)])
    opened = frame.floor(draw(opens))
    candle = Candle(
        symbol=draw(st.sampled_from(["BTC-USDT", "1000SHIB-USDT", "brk.b-usd"])),
        timeframe=frame,
        open_time=opened,
        low=values[0],
        open=values[1],
        close=values[2],
        high=values[3],
        volume=draw(st.floats(min_value=0, max_value=1e15)),
        revision=draw(st.integers(0, 9)),
    )
    ids = draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=60, unique=True))
    return Chunk(
        dispatch_id=draw(st.integers(1, 2**62)),
        candle=candle,
        priority=draw(st.sampled_from(list(Priority))),
        jobs=tuple(JobKey(number, draw(st.integers(1, 99))) for number in ids),
        correlation_id="c0ffee",
        created_at=NOW,
        deadline=NOW.replace(microsecond=0) + timedelta(seconds=60),
        expires_at=NOW.replace(microsecond=0) + timedelta(seconds=300),
        catalogue_version=draw(st.integers(0, 99)),
        previous_open_time=draw(st.sampled_from([None, opened - frame.duration])),
        rewrites=draw(st.integers(0, 9)),
        attempt=draw(st.integers(0, 3)),
    )


@given(st.lists(chunks(), min_size=1, max_size=4))
def test_a_bundle_survives_the_wire_bit_by_bit(bundled):
    bundle = Bundle(chunks=tuple(bundled))
    assert Bundle.from_wire(json.loads(json.dumps(bundle.to_wire()))) == bundle


def wire(**changes: object) -> dict[str, Any]:
    candle = Candle(
        symbol="BTC-USDT", timeframe="1h", open_time=datetime(2024, 1, 1, tzinfo=UTC),
        open=1.0, high=2.0, low=0.5, close=1.5, volume=3.0,
    )  # fmt: skip
    chunk = Chunk(
        dispatch_id=7, candle=candle, priority=Priority.HIGH, jobs=(JobKey(3, 1), JobKey(5, 2)), correlation_id="c",
        created_at=NOW, deadline=NOW, expires_at=NOW, catalogue_version=1,
    )  # fmt: skip
    return {"v": 1, "chunks": [{**chunk.to_wire(), **changes}]}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (None, "JSON object, found NoneType"),
        ([1, 2], "JSON object, found list"),
        ({}, "version 1, found None"),
        ({**wire(), "v": 2}, "version 1, found 2"),
        ({"v": 1, "chunks": [{}]}, "KeyError: 'ohlcv'"),
        ({"v": 1}, "KeyError: 'chunks'"),
        ({"v": 1, "chunks": []}, "at least 1"),
        ({"v": 1, "chunks": [None]}, "TypeError"),
        ({"v": 1, "chunks": wire()["chunks"] * 600}, "at most 1024 jobs in a message, found 1200"),
        (wire(ohlcv=[1, 2, 3]), "not enough values"),
        (wire(ohlcv=[1.0, 0.5, 0.5, 1.5, 0.0]), "below max"),
        (wire(jobs=[]), "at least 1"),
        (wire(jobs=[[1]]), r"jobs.0.1 \[1\]: Field required"),
        (wire(jobs="abc"), "jobs"),
        (wire(open_ms=10**30), "version 1 message"),
        (wire(open_ms="soon"), "TypeError"),
        (wire(priority="urgent"), "priority"),
    ],
)
def test_what_is_not_a_chunk_is_refused_with_its_reason(body, complaint):
    with pytest.raises(MessageError, match=complaint):
        Bundle.from_wire(body)


def test_ids_are_the_same_on_every_delivery():
    bundle = Bundle.from_wire(wire())
    assert bundle.task_id == Bundle.from_wire(wire()).task_id == "7.3+1"
    (chunk,) = bundle.chunks
    assert Bundle(chunks=(chunk, chunk, chunk)).task_id == "7.3+1~2"
    alone = chunk.model_copy(update={"jobs": chunk.jobs[:1]})
    assert alone.task_id == job_id(7, 3) == "7.3"


def test_a_chunk_unfolds_into_its_jobs():
    (chunk,) = Bundle.from_wire(wire()).chunks
    jobs = list(chunk.to_jobs())
    assert [(job.job_id, job.strategy_id, job.strategy_revision) for job in jobs] == [("7.3", 3, 1), ("7.5", 5, 2)]
    assert {job.priority for job in jobs} == {Priority.HIGH}
    assert jobs[0].candle == chunk.candle
    assert jobs[0].created_at == NOW


@pytest.mark.parametrize(
    "fields",
    [
        {"action": 2},
        {"action": 1, "strength": 1.1},
        {"action": 1, "strength": float("nan")},
        {"action": 1, "edge": float("inf")},
        {"action": 1, "stop": 0.0},
        {"action": 1, "extras": {"when": datetime(2024, 1, 1, tzinfo=UTC)}},
    ],
)
def test_a_signal_out_of_range_is_refused(fields):
    with pytest.raises(ValidationError):
        Signal(**fields)
