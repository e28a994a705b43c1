"""Backpressure where it decides: nothing lost, nothing repeated, order kept, no limit passed, high before low."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.broker import QUEUES, pack
from app.domain.costs import Room
from app.domain.queues import QueueLimit, Waiting, aged_queues, room, rooms, why_full
from app.domain.strategies import Priority
from app.producer.admission import SHORT_BREAK, HeldBack, why_wait
from app.producer.hold import Hold

NOW = datetime(2024, 1, 1, tzinfo=UTC)
JOBS_IN_MESSAGE = 8
ROOM = Room(JOBS_IN_MESSAGE, work_ms=0.5, slots=2)

queues = st.sampled_from(QUEUES)


def envelope(queue: str, jobs: int = 1, dispatch_id: int = 1, expires_at: datetime = NOW) -> Any:
    chunk = SimpleNamespace(
        priority=Priority(queue), attempt=0, jobs=(0,) * jobs, dispatch_id=dispatch_id, expires_at=expires_at
    )
    return SimpleNamespace(chunk=chunk, countdown_s=None, alone=False, cost_ms=0.03 * jobs)


class Producing(RuleBasedStateMachine):
    """A producer whose queues are filled, consumed, and looked at in any order; time passes; memory is short."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = Hold()
        self.now = NOW
        self.limits = {"high": 4, "normal": 3, "low": 2}
        self.depths: Counter[str] = Counter()
        self.put: list[Any] = []
        self.sent: list[Any] = []
        self.lost: list[Any] = []
        self.complete: list[int] = []
        self.dispatches = 0

    @rule(shapes=st.lists(st.lists(st.tuples(queues, st.integers(1, JOBS_IN_MESSAGE)), min_size=1, max_size=4)))
    def write_batch(self, shapes: list[list[tuple[str, int]]]) -> None:
        batch = []
        for shape in shapes:
            self.dispatches += 1
            batch += [envelope(*each, self.dispatches, self.now + timedelta(seconds=10)) for each in shape]
        batch.sort(key=lambda each: QUEUES.index(each.chunk.priority.value))
        self.hold.put(batch)
        self.put += batch

    @rule()
    def publish(self) -> None:
        free = rooms({q: QueueLimit(n) for q, n in self.limits.items()}, {q: Waiting(self.depths[q]) for q in QUEUES})
        fit = self.hold.fitting(free, ROOM)
        messages = Counter(message[0].chunk.priority.value for message in fit)
        held = self.held()
        for queue in QUEUES:
            assert messages[queue] <= free[queue]
            # a queue with room and something held for it gets it, whatever the others do
            waiting = list(pack([each for each in held if each.chunk.priority == queue], ROOM))
            assert messages[queue] == min(free[queue], len(waiting))
        ranks = [QUEUES.index(message[0].chunk.priority.value) for message in fit]
        assert ranks == sorted(ranks)
        self.depths.update(messages)
        self.complete += self.hold.take_out(fit)
        self.sent += [each for message in fit for each in message]

    @rule(queue=queues, count=st.integers(1, 4))
    def consume(self, queue: str, count: int) -> None:
        self.depths[queue] = max(0, self.depths[queue] - count)

    @rule(most=st.integers(0, 12))
    def run_short_of_memory(self, most: int) -> None:
        before = self.held()
        gone = self.hold.let_go(most)
        assert len(self.hold) == min(most, len(before))
        assert gone == len(before) - len(self.hold)
        counts = self.hold.counts
        kept = [each for queue in QUEUES for each in self.of(queue, before)[: counts.get(queue, 0)]]
        self.lost += [each for each in before if not any(each is other for other in kept)]
        for urgent, other in (("high", "normal"), ("high", "low"), ("normal", "low")):
            # an urgent one only went when nothing less urgent was left
            assert counts.get(urgent, 0) == len(self.of(urgent, before)) or not counts.get(other)

    @rule(seconds=st.integers(1, 6))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        before = self.held()
        out_of_date = [each for each in before if each.chunk.expires_at <= self.now]
        assert self.hold.drop_expired(self.now) == len(out_of_date)
        self.lost += out_of_date

    @invariant()
    def nothing_is_lost_or_repeated(self) -> None:
        assert len(self.put) == len(self.sent) + len(self.lost) + len(self.hold)
        assert len({id(each) for each in (*self.sent, *self.lost)}) == len(self.sent) + len(self.lost)
        assert sum(self.hold.counts.values()) == len(self.hold)

    @invariant()
    def order_is_kept_within_a_queue(self) -> None:
        places = {id(each): place for place, each in enumerate(self.put)}
        for queue in QUEUES:
            went = [places[id(each)] for each in self.of(queue, self.sent)]
            assert went == sorted(went)

    @invariant()
    def a_dispatch_is_published_when_all_of_it_is(self) -> None:
        whole = Counter(each.chunk.dispatch_id for each in self.put)
        sent = Counter(each.chunk.dispatch_id for each in self.sent)
        assert sorted(self.complete) == sorted(number for number in whole if whole[number] == sent[number])
        assert set(self.hold.dispatch_ids) == {each.chunk.dispatch_id for each in self.held()}

    def held(self) -> list[Any]:
        gone = {id(each) for each in (*self.sent, *self.lost)}
        return [each for each in self.put if id(each) not in gone]

    def of(self, queue: str, envelopes: list[Any]) -> list[Any]:
        return [each for each in envelopes if each.chunk.priority == queue]


TestProducing = Producing.TestCase


@given(st.lists(st.tuples(queues, st.integers(1, 5)), max_size=60), st.integers(5, 12))
def test_messages_keep_the_order_and_hold_one_priority_each(wanted, most):
    envelopes = [envelope(queue, jobs, number) for number, (queue, jobs) in enumerate(wanted)]
    messages = list(pack(envelopes, Room(most)))
    assert [each for message in messages for each in message] == envelopes
    for message in messages:
        assert len({each.chunk.priority for each in message}) == 1
        assert sum(len(each.chunk.jobs) for each in message) <= most


def test_retries_and_chunks_of_one_dispatch_travel_apart():
    first, second, retry = (envelope("low", dispatch_id=number) for number in (1, 1, 2))
    retry.countdown_s = 1.0
    suspect, after = envelope("low", dispatch_id=3), envelope("low", dispatch_id=4)
    suspect.alone = True
    messages = list(pack([first, second, retry, suspect, after], Room(32)))
    assert messages == [[first], [second], [retry], [suspect], [after]]


@given(st.integers(1, 50), st.none() | st.floats(0.1, 50), st.integers(0, 60), st.none() | st.floats(0, 60))
def test_a_queue_has_room_exactly_while_nothing_says_it_is_full(messages, age_s, depth, oldest_s):
    limit, waiting = QueueLimit(messages, age_s), Waiting(depth, oldest_s)
    is_late = age_s is not None and oldest_s is not None and oldest_s > age_s
    assert room(limit, waiting) == (0 if is_late else max(0, messages - depth))
    assert (why_full(limit, waiting) is None) == (room(limit, waiting) > 0)


def test_a_queue_of_which_nothing_is_known_gets_nothing():
    assert rooms({"high": QueueLimit(3), "low": QueueLimit(3)}, {"high": Waiting(1)}) == {"high": 2}


def test_only_queues_with_a_limit_on_age_are_looked_into():
    assert aged_queues({"high": QueueLimit(3), "low": QueueLimit(3, 5.0)}) == ("low",)


def test_a_full_queue_is_named_with_its_figures():
    limits = {"high": QueueLimit(100), "low": QueueLimit(100, 5.0)}
    waiting = {"high": Waiting(3), "low": Waiting(7, 9.25)}
    assert why_wait({"low": 9}, 10, limits, waiting) is None
    assert why_wait({"high": 1, "low": 1234}, 10, limits, waiting) == (
        "1,235 chunks are held; low is late: its oldest message was dispatched 9.2 s ago, the limit is 5 s"
    )
    assert why_wait({"low": 10}, 10, limits, {**waiting, "low": Waiting(100)}) == (
        "10 chunks are held; low is full: 100 of 100"
    )


@pytest.mark.parametrize(("pause", "is_over"), [(SHORT_BREAK, False), (SHORT_BREAK * 1.01, True)])
def test_a_short_break_does_not_end_a_wait(pause, is_over):
    held_back = HeldBack()
    assert not held_back.note(None, NOW)
    assert held_back.note("low is full", NOW)
    assert not held_back.note("low is still full", NOW + SHORT_BREAK)
    assert held_back.note(None, NOW + SHORT_BREAK + pause) is is_over
    assert (held_back.since, held_back.reason) == ((None, None) if is_over else (NOW, "low is still full"))


def test_slow_chunks_share_messages_with_slow_ones_when_there_are_many():
    room = Room(32, work_ms=10.0, slots=2)
    slow = [envelope("low", dispatch_id=1) for _ in range(12)]
    for each in slow:
        each.cost_ms = 8.0
    quick = envelope("low", dispatch_id=2)
    assert [len(message) for message in pack([quick, *slow], room)] == [1, 6, 6]
    assert [len(message) for message in pack(slow[:2], room)] == [1, 1], "no slot is idle meanwhile"
