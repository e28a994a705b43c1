"""When a job counts as lost: never while it may wait, be held or be about to be tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.jobs import job_id
from app.domain.strategies import Priority
from app.maintenance.judging import Head, Held, Look, Patience, TaskId, find_lost
from app.maintenance.lookout import SNAPSHOT_LAG, settled_look
from app.storage.unfinished import MissingJob, Unfinished
from app.storage.watch import WatchedNode

NOW = datetime(2024, 1, 1, tzinfo=UTC)
PATIENCE = Patience(timedelta(seconds=6), lambda attempt: 2.0**attempt)
QUEUES = dict.fromkeys(range(1, 100), Priority.NORMAL)
NOBODY = Held(())


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


LONG_AGO, LATELY = ago(60), ago(2)


def dispatch(
    *missing: MissingJob,
    number: int = 10,
    published_at: datetime | None = LONG_AGO,
    sends: int = 1,
    created_s: float = 60,
) -> Unfinished:
    return Unfinished(
        id=number,
        candle=None,
        rewrites=0,
        correlation_id="c",
        created_at=ago(created_s),
        deadline=NOW,
        expires_at=NOW + timedelta(hours=1),
        published_at=published_at,
        sends=sends,
        missing=missing or (MissingJob(1, 1),),
    )


def look(head: Head | None, at: datetime = LATELY) -> Look:
    return Look(at, {"high": None, "normal": head, "low": None})


def lost(found: Unfinished, head: Head | None = None, held: Held = NOBODY) -> list[int]:
    jobs = find_lost(found, QUEUES, look(head), held, PATIENCE, NOW)
    return [job.strategy_id for job in jobs]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("7.3", TaskId(7, 3)),
        ("7.3+31", TaskId(7, 3, 31)),
        ("bury.7.3.2", TaskId(7, 3)),
        ("canary.a@b.17", None),
        ("7.3.1", TaskId(7, 3)),
        ("dead.x", None),
        ("", None),
    ],
)
def test_task_ids_are_read(text: str, parsed: TaskId | None) -> None:
    assert TaskId.parse(text) == parsed


@given(st.integers(1, 10**12), st.lists(st.integers(1, 10**6), min_size=1, max_size=40, unique=True))
def test_a_chunk_that_is_held_holds_every_one_of_its_jobs(number: int, strategies: list[int]) -> None:
    strategies.sort()
    others = f"+{len(strategies) - 1}" if len(strategies) > 1 else ""
    held = Held([job_id(number, strategies[0]) + others])
    assert all(held.may_hold(number, each) for each in strategies)
    assert not held.may_hold(number + 1, strategies[0])
    assert not held.may_hold(number, strategies[0] - 1)


def test_an_empty_queue_holds_nothing_and_one_that_cannot_be_read_everything() -> None:
    assert lost(dispatch(), None) == [1]
    assert lost(dispatch(), Head(None, None)) == []


def test_what_was_sent_once_has_left_when_a_later_dispatch_is_in_front() -> None:
    assert lost(dispatch(number=10), Head(11, ago(60))) == [1]
    assert lost(dispatch(number=10), Head(10, ago(60))) == []
    assert lost(dispatch(number=10), Head(9, ago(60))) == []


def test_what_was_sent_again_has_left_when_something_written_later_is_in_front() -> None:
    assert lost(dispatch(sends=2, published_at=ago(30)), Head(11, ago(31))) == []
    assert lost(dispatch(sends=2, published_at=ago(30)), Head(11, ago(29))) == [1]


def test_a_look_from_before_the_sending_says_nothing() -> None:
    found = dispatch(published_at=ago(6))
    jobs = find_lost(found, QUEUES, look(None, at=ago(7)), NOBODY, PATIENCE, NOW)
    assert jobs == ()


def test_a_retry_may_wait_its_longest_delay_and_the_patience() -> None:
    assert lost(dispatch(MissingJob(1, 1, attempt=2, tried_at=ago(13)))) == []  # 2**3 + 6 = 14
    assert lost(dispatch(MissingJob(1, 1, attempt=2, tried_at=ago(15)))) == [1]


def test_what_was_not_published_is_sent_when_its_queue_has_nothing_of_its_time() -> None:
    assert lost(dispatch(published_at=None, sends=0, created_s=7)) == [1]
    assert lost(dispatch(published_at=None, sends=0, created_s=5)) == []
    # a part of it may be on its queue: what is in front there was written before it
    assert lost(dispatch(number=10, published_at=None, sends=0), Head(9, ago(70))) == []
    assert lost(dispatch(number=10, published_at=None, sends=0), Head(11, ago(50))) == [1]


@given(
    age=st.floats(0, 100),
    tried=st.none() | st.floats(0, 100),
    sends=st.integers(0, 12),
    head=st.none() | st.tuples(st.none() | st.integers(1, 20), st.none() | st.floats(0, 100)),
    is_held=st.booleans(),
)
def test_nothing_fresh_held_or_certainly_waiting_is_ever_lost(
    age: float, tried: float | None, sends: int, head: tuple[int | None, float | None] | None, is_held: bool
) -> None:
    job = MissingJob(1, 1, None if tried is None else 0, None if tried is None else ago(tried))
    found = dispatch(job, published_at=ago(age), sends=sends)
    front = None if head is None else Head(head[0], None if head[1] is None else ago(head[1]))
    answer = lost(found, front, Held(["10.1"]) if is_held else NOBODY)
    is_fresh = min(age, age if tried is None else tried) < 6
    is_in_front = front is not None and front.dispatch_id == 10 and (front.created_at or ago(100)) <= ago(age)
    if is_held or is_fresh or is_in_front or (front is not None and front.dispatch_id is None and not front.created_at):
        assert answer == []


def node(seen_s: float) -> WatchedNode:
    return WatchedNode("a", 2, 0, (), (), None, None, ago(seen_s))


@given(st.lists(st.floats(0, 10), max_size=5), st.lists(st.floats(0, 30), max_size=20))
def test_the_look_that_counts_is_older_than_every_living_nodes_word(seen: list[float], looked: list[float]) -> None:
    looks = [Look(ago(each), {}) for each in sorted(looked, reverse=True)]
    chosen = settled_look(looks, [node(each) for each in seen], NOW)
    until = min((ago(each) - SNAPSHOT_LAG for each in seen), default=NOW)
    fit = [each.at for each in looks if each.at <= until]
    assert (chosen.at if chosen else None) == (max(fit) if fit else None)
