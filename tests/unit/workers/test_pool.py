"""What waits for a slot in a node: whose turn it is, and that nothing is handed over without room."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from celery.concurrency.prefork import TaskPool
from hypothesis import given
from hypothesis import strategies as st

from workers.main import count_slots
from workers.pool import Gate

WEIGHTS = {"control": 1000, "high": 8, "normal": 3, "low": 1}
QUEUES = st.sampled_from([*WEIGHTS, "worker@host.dq", None, ["high"]])


@dataclass(eq=False)
class Request:
    """As much of a request as the gate looks at."""

    queue: Any
    delivery_info: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.delivery_info = {"routing_key": self.queue}


class Slots:
    """A number of slots, and what was handed to them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.running: list[Request] = []
        self.started: list[Request] = []
        self.gate = Gate(WEIGHTS, lambda: self.count - len(self.running), lambda: None)

    def send(self, *queues: Any) -> list[Request]:
        requests = [Request(queue) for queue in queues]
        for request in requests:
            self.gate.acquire(self.start, request)
        return requests

    def start(self, request: Request) -> None:
        self.running.append(request)
        self.started.append(request)

    def finish(self) -> None:
        self.running.pop(0)
        self.gate.release()
        self.gate.admit()

    def finish_all(self) -> list[Any]:
        while self.running:
            self.finish()
        return [request.queue for request in self.started]


def test_the_urgent_one_overtakes_what_waits():
    slots = Slots(1)
    slots.send("low", "low", "low", "normal", "high", "control")
    assert slots.finish_all() == ["low", "control", "high", "normal", "low", "low"]


def test_a_flood_leaves_turns_to_the_others():
    slots = Slots(2)
    slots.send(*["high"] * 160, *["normal"] * 60, *["low"] * 20)
    assert Counter(slots.finish_all()[:120]) == {"high": 80, "normal": 30, "low": 10}


def test_a_canary_through_the_nodes_own_queue_does_not_wait_for_jobs():
    slots = Slots(1)
    slots.send("high", "high", "high", "worker@host.dq")
    assert slots.finish_all()[1] == "worker@host.dq"


def test_slots_that_come_are_used_and_slots_that_go_get_nothing():
    slots = Slots(1)
    slots.send(*["low"] * 6)
    slots.count = 3
    slots.gate.admit()
    assert len(slots.running) == 3
    slots.count = 1
    slots.finish()
    slots.finish()
    assert (len(slots.running), len(slots.started)) == (1, 3)
    slots.finish()
    assert (len(slots.running), len(slots.started)) == (1, 4)


def test_what_was_forgotten_never_starts():
    slots = Slots(1)
    slots.send("low", "low", "high")
    slots.gate.clear()
    assert slots.finish_all() == ["low"]


@given(st.integers(1, 4), st.lists(QUEUES, max_size=60), st.data())
def test_everything_starts_once_in_the_order_of_its_queue_and_within_the_slots(count, queues, data):
    slots = Slots(count)
    sent = []
    for queue in queues:
        sent += slots.send(queue)
        assert len(slots.running) <= count
        if slots.running and data.draw(st.booleans()):
            slots.finish()
    slots.finish_all()
    assert len(slots.started) == len(sent) and set(slots.started) == set(sent)
    for name in ("high", "normal", "low"):
        assert [r for r in slots.started if r.queue == name] == [r for r in sent if r.queue == name]


def test_a_pool_that_has_ended_has_no_slots() -> None:
    pool = TaskPool(3)
    assert count_slots(pool) == 0  # not started either
    pool._pool = type("Inner", (), {"_processes": 3})()
    assert count_slots(pool) == 3
