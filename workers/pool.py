"""The pool of a node: which message gets a slot next, how many are held, and slots that come and go while it runs.

Celery hands what it has fetched to its slots in the order of arrival, and ends slots only while they are idle, which
under load they never are. Here what waits in the main process goes by the same turns as the queues themselves, and a
slot that is to go finishes what it runs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any

from billiard.pool import EX_OK, EX_RECYCLE, RUN
from celery import Celery, bootsteps
from celery.concurrency.asynpool import AsynPool
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from app.broker import CONTROL_QUEUE, WeightedCycle
from app.settings import MOST_SLOTS

#: Slots started in one look: forking holds up the main process, and so everything that is on its way.
STARTS_AT_ONCE = 16

#: Messages that take longer than this on average, milliseconds, are fetched only when a slot is free for them. Waiting
#: for Redis costs about half a millisecond, 1 % of such a message; one that waits here while its node is busy could run
#: on another node, and holds up whatever is more urgent.
QUICK_MS = 50.0

#: Weight of the newest message in that average: one of 300 ms among quick ones is enough to exceed it, and two of 200.
NEWEST = 0.2

#: What waits for a slot: how to hand it over, and what.
Waiting = tuple[Callable[[Any], None], Any]


class Gate:
    """What waits for a slot in the main process; stands in for the semaphore between consumer and pool.

    Args:
        weights: turns of each queue in a full cycle, the most urgent first.
        room: returns how many more messages the pool has slots for now.
        send: has the slots sent what was handed over.
    """

    def __init__(self, weights: Mapping[str, int], room: Callable[[], int], send: Callable[[], None]) -> None:
        self._waiting: dict[str, deque[Waiting]] = {queue: deque() for queue in weights}
        self._cycle = WeightedCycle(dict(weights), weights)
        self._room = room
        self._send = send

    def acquire(self, callback: Callable[[Any], None], request: Any) -> None:
        """Hand a request to the pool: now, or when it has a slot and nothing more urgent waits."""
        # what comes through a node's own queue is a canary of the fleet
        queue = request.delivery_info.get("routing_key")
        known = queue if isinstance(queue, str) and queue in self._waiting else CONTROL_QUEUE
        self._waiting[known].append((callback, request))
        self.admit()

    def admit(self) -> None:
        """Hand over as much as there is room for."""
        if any(self._waiting.values()):
            for _ in range(self._room()):
                if (waiting := self._next()) is None:
                    break
                callback, request = waiting
                callback(request)
            self._send()

    def release(self) -> None:
        """Nothing: room is counted, not remembered, or every slot that ends would add some for ever."""

    def clear(self) -> None:
        """Forget what waits: its messages went back to their queues."""
        for waiting in self._waiting.values():
            waiting.clear()

    def _next(self) -> Waiting | None:
        for queue in self._cycle.consume(len(self._waiting)):
            if self._waiting[queue]:
                return self._waiting[self._cycle.rotate(queue)].popleft()
        return None


class SlotPool(AsynPool):  # type: ignore[misc]  # Celery ships no types
    """Celery's pool, with slots that come and go while it runs."""

    #: Milliseconds a message takes, on average; slow until seven quick ones were seen.
    message_ms = 4 * QUICK_MS
    #: Celery's way to write to slots, once it is connected.
    _write: Callable[[Sequence[int]], None] | None = None

    def room(self) -> int:
        """Return how many messages could start now: slots that are up and stay, less messages on their way."""
        slots: int = min(len(self._all_inqueues), self._processes)
        return slots - len(self._busy_workers) - len(self.outbound_buffer)

    def send(self) -> None:
        """Write what was handed over to idle slots, now: Celery would first look at all its connections once more."""
        if self._write is not None and self.outbound_buffer:
            self._write([fd for fd in self._all_inqueues if fd not in self._busy_workers])

    def grow(self, n: int = 1) -> None:
        """Have more slots; they start within moments.

        Raises:
            ValueError: that would be too many.
        """
        if self._processes + n > MOST_SLOTS:
            raise ValueError(f"expected at most {MOST_SLOTS} slots, found {self._processes} and {n} more asked for")
        self._processes += n
        self.on_grow(n)

    def shrink(self, n: int = 1) -> None:
        """Have fewer slots; those that run something finish it first.

        Raises:
            ValueError: none would be left.
        """
        if self._processes - n < 1:
            raise ValueError(f"expected to keep a slot, found {self._processes} and {n} fewer asked for")
        self._processes -= n
        self._retire()

    def on_job_ready(self, job: int, i: int | None, obj: Any, inqW_fd: int) -> None:  # noqa: N803 - billiard's name
        """A slot is free again: it gets its next message before its last one is acknowledged, which takes Redis."""
        super().on_job_ready(job, i, obj, inqW_fd)
        result = self._cache.get(job)
        if result is not None and result._time_accepted is not None:
            took_ms = (time.monotonic() - result._time_accepted) * 1000
            self.message_ms += NEWEST * (took_ms - self.message_ms)
        if state.should_stop is None and state.should_terminate is None:
            self._putlock.admit()

    def register_with_event_loop(self, hub: Any) -> None:
        """Take part in the event loop, with every new connection."""
        self._registered_with_event_loop = True  # its own part is done in `_tick`, after ours
        super().register_with_event_loop(hub)
        self._write = hub.consolidate_callback
        hub.on_tick.add(self._tick)

    def _tick(self) -> None:
        self._putlock.admit()
        self.on_poll_start()

    def _maintain_pool(self) -> None:
        super()._maintain_pool()
        self._retire()

    def _repopulate_pool(self, exitcodes: list[int]) -> None:
        for number in range(min(self._processes - len(self._pool), STARTS_AT_ONCE)):
            if self._state != RUN:
                return
            if number < len(exitcodes) and exitcodes[number] not in (EX_OK, EX_RECYCLE):
                self.restart_state.step()  # slots that die too often end the node; slots that are added do not
            self._create_worker_process(self._avail_index())

    def _retire(self) -> None:
        """End idle slots while there are more than there should be."""
        staying = [slot for slot in self._pool if not getattr(slot, "_controlled_termination", False)]
        surplus = len(staying) - self._processes
        for slot in list(self._idle(staying))[: max(0, surplus)]:
            self._all_inqueues.discard(slot.inqW_fd)  # nothing is written to it any more
            slot.terminate_controlled()

    def _idle(self, slots: list[Any]) -> Iterator[Any]:
        for slot in slots:
            if slot.inqW_fd in self._all_inqueues and slot.inqW_fd not in self._busy_workers:
                yield slot


def install(app: Celery, weights: Mapping[str, int]) -> None:
    """Have the nodes of an application use this pool.

    Args:
        app: the application.
        weights: turns of each queue in a full cycle, the most urgent first.
    """

    class UseSlotPool(bootsteps.Step):  # type: ignore[misc]  # Celery ships no types
        """Puts our pool and its gate in the place of Celery's, before either starts."""

        requires = ("celery.worker.components:Pool",)

        def create(self, worker: Any) -> None:
            pool = worker.pool
            worker.semaphore = gate = Gate(weights, lambda: pool._pool.room(), lambda: pool._pool.send())
            worker._quick_acquire, worker._quick_release = gate.acquire, gate.release
            pool.Pool = SlotPool
            pool.options["semaphore"] = gate

    app.steps["worker"].add(UseSlotPool)
    app.steps["consumer"].add(FetchSlowOnesLate)


class FetchSlowOnesLate(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Holds no message that waits for a slot while messages are slow: Celery's `worker_disable_prefetch`, at times."""

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Begin, with every new connection."""
        qos, pool = consumer.task_consumer.channel.qos, consumer.pool
        may_hold = qos.can_consume

        def can_consume(_: Any) -> bool:
            if pool._pool.message_ms > QUICK_MS and len(state.reserved_requests) >= pool.num_processes:
                return False
            return bool(may_hold())

        qos.can_consume = MethodType(can_consume, qos)
