from collections import Counter
from threading import Event
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.broker import pack
from app.domain.costs import Room
from app.domain.strategies import Priority
from app.producer.admission import Admission, fitting


def envelope(queue: str, jobs: int = 1) -> Any:
    numbers.append(len(numbers))
    chunk = SimpleNamespace(priority=Priority(queue), attempt=0, jobs=(0,) * jobs, dispatch_id=numbers[-1])
    return SimpleNamespace(chunk=chunk, countdown_s=None, alone=False, cost_ms=0.1)


numbers: list[int] = []


queues = st.sampled_from(["high", "normal", "low"])


@given(
    st.lists(st.tuples(queues, st.integers(1, 5)), max_size=60),
    st.dictionaries(queues, st.integers(0, 40)),
    st.integers(1, 30),
    st.integers(5, 12),
)
def test_no_queue_passes_its_limit_and_as_many_as_possible_go(wanted, depths, limit, jobs_in_message):
    envelopes = [envelope(*each) for each in wanted]
    count = fitting(envelopes, depths, limit, Room(jobs_in_message))
    messages = list(pack(envelopes, Room(jobs_in_message)))
    sent = list(pack(envelopes[:count], Room(jobs_in_message)))
    assert sent == messages[: len(sent)]  # whole messages
    after = Counter(depths) + Counter(message[0].chunk.priority.value for message in sent)
    assert all(after[queue] <= max(limit, depths.get(queue, 0)) for queue in after)
    if count < len(envelopes):
        assert after[messages[len(sent)][0].chunk.priority.value] >= limit


@given(st.lists(st.tuples(queues, st.integers(1, 5)), max_size=60), st.integers(5, 12))
def test_messages_keep_the_order_and_hold_one_priority_each(wanted, most):
    envelopes = [envelope(*each) for each in wanted]
    messages = list(pack(envelopes, Room(most)))
    assert [each for message in messages for each in message] == envelopes
    for message in messages:
        assert len({each.chunk.priority for each in message}) == 1
        assert sum(len(each.chunk.jobs) for each in message) <= most


def test_retries_and_chunks_of_one_dispatch_travel_apart():
    first, second, retry = envelope("low"), envelope("low"), envelope("low")
    second.chunk.dispatch_id = first.chunk.dispatch_id
    retry.countdown_s = 1.0
    suspect, after = envelope("low"), envelope("low")
    suspect.alone = True
    assert list(pack([first, second, retry, suspect, after], Room(32))) == [
        [first],
        [second],
        [retry],
        [suspect],
        [after],
    ]


def test_it_waits_until_a_worker_makes_room():
    depths = iter([{"high": 2}, {"high": 2}, {"high": 1}])
    admission = Admission(lambda: next(depths), 2, Room(1))
    assert admission.await_room([envelope("high"), envelope("high")], Event()) == 1
    assert next(depths, None) is None
    assert admission.waited_s > 0


def test_a_stop_ends_the_wait():
    stop = Event()
    stop.set()
    assert Admission(lambda: {"high": 9}, 2, Room(1)).await_room([envelope("high")], stop) == 0
