from collections import Counter
from threading import Event
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.domain.strategies import Priority
from app.producer.admission import Admission, fitting


def envelope(queue: str) -> Any:
    return SimpleNamespace(chunk=SimpleNamespace(priority=Priority(queue)))


queues = st.sampled_from(["high", "normal", "low"])


@given(st.lists(queues, max_size=60), st.dictionaries(queues, st.integers(0, 40)), st.integers(1, 30))
def test_no_queue_passes_its_limit_and_as_many_as_possible_go(wanted, depths, limit):
    count = fitting([envelope(queue) for queue in wanted], depths, limit)
    after = Counter(depths) + Counter(wanted[:count])
    assert all(after[queue] <= max(limit, depths.get(queue, 0)) for queue in after)
    if count < len(wanted):
        assert after[wanted[count]] >= limit


def test_it_waits_until_a_worker_makes_room():
    depths = iter([{"high": 2}, {"high": 2}, {"high": 1}])
    admission = Admission(lambda: next(depths), 2)
    assert admission.await_room([envelope("high"), envelope("high")], Event()) == 1
    assert next(depths, None) is None
    assert admission.waited_s > 0


def test_a_stop_ends_the_wait():
    stop = Event()
    stop.set()
    assert Admission(lambda: {"high": 9}, 2).await_room([envelope("high")], stop) == 0
