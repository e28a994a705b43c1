"""Which jobs are told of and which are left out: the rate, the buffer, one message a flush. No Redis, real thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event as Signal
from typing import Any

from app.domain.jobs import Chunk, JobKey, OutcomeStatus
from app.domain.strategies import Limits, Priority
from app.errors import BrokerUnavailableError
from app.settings import EventSettings
from app.storage.landing import Attempt, Landing
from tests.building import candle, outcome
from tests.waiting import wait_until
from workers.events import JobEvents, Rate
from workers.runtime.strategies import Runtime
from workers.shared import Tally
from workers.telling import Delivery, Event

NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
NEVER_FULL = EventSettings(rate=1e9, buffer=100_000, flush_ms=1)


class Wire:
    """Takes messages in Redis's place."""

    def __init__(self) -> None:
        self.messages: list[list[Event]] = []
        self.may_send = Signal()
        self.may_send.set()
        self.is_away = False

    def send(self, node: str, events: Sequence[Event]) -> None:
        self.may_send.wait(10)
        if self.is_away:
            raise BrokerUnavailableError("Redis is away")
        self.messages.append(list(events))

    @property
    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("task-") for message in self.messages for event in message]


@contextmanager
def telling(wire: Wire, settings: EventSettings, tally: Tally, running: int = 0) -> Iterator[JobEvents]:
    events = JobEvents(wire.send, lambda: None, settings, tally, lambda: running)
    events.start()
    try:
        yield events
    finally:
        events.close()


def chunk(jobs: int, dispatch_id: int = 1) -> Chunk:
    return Chunk(
        dispatch_id=dispatch_id,
        candle=candle(),
        priority=Priority.NORMAL,
        jobs=tuple(JobKey(number, 1) for number in range(1, jobs + 1)),
        correlation_id="c",
        created_at=NOW,
        deadline=NOW + timedelta(minutes=1),
        expires_at=NOW + timedelta(minutes=5),
        catalogue_version=1,
    )


def runtimes(of: Chunk) -> list[Runtime]:
    return [Runtime(f"s{key.strategy_id}", Limits(), None) for key in of.jobs]


def ends(of: Chunk, **statuses: OutcomeStatus) -> list[Any]:
    """All succeeded, but for those named, such as `s3=FAILED`."""
    return [
        outcome(key.strategy_id, status=statuses.get(f"s{key.strategy_id}", OutcomeStatus.SUCCEEDED)) for key in of.jobs
    ]


def land(events: JobEvents, of: Chunk, outcomes: Sequence[Any], attempts: Sequence[Attempt] = ()) -> None:
    events.open(Delivery("node@host", 7, NOW.timestamp(), None, len(of.jobs)))
    events.begin(of, runtimes(of))
    events.land(of, runtimes(of), Landing(of.dispatch_id, outcomes, attempts))
    events.end()


def counted(tally: Tally) -> tuple[int, int, int]:
    return tally.events_sent, tally.events_sampled, tally.events_dropped


def test_each_end_has_its_own_kind() -> None:
    wire, of = Wire(), chunk(7)
    status = OutcomeStatus
    outcomes = ends(
        of,
        s1=status.FAILED,
        s2=status.TIMED_OUT,
        s3=status.CRASHED,
        s4=status.CANCELLED,
        s5=status.EXPIRED,
        s6=status.SKIPPED,
    )
    with telling(wire, NEVER_FULL, Tally()) as events:
        land(events, of, outcomes, [Attempt(8, 0, status.FAILED, "ValueError", "no", 2.0, 1.0)])
    told = {f"{of.dispatch_id}.{n}": [] for n in range(1, 9)}  # type: dict[str, list[str]]
    for message in wire.messages:
        for event in message:
            told[event["uuid"]].append(event["type"].removeprefix("task-"))
    ran = ["received", "started"]
    assert list(told.values()) == [
        *[[*ran, "failed"]] * 3,
        ["received", "revoked"],
        ["received", "revoked"],
        ["received", "rejected"],
        [*ran, "succeeded"],
        [*ran, "retried"],
    ]


def test_all_of_a_flush_leaves_in_one_message() -> None:
    wire, tally = Wire(), Tally()
    with telling(wire, EventSettings(flush_ms=60_000, rate=1e9), tally) as events:
        for number in range(1, 6):
            land(events, chunk(20, number), ends(chunk(20, number)))
    assert [len(message) for message in wire.messages] == [300]
    assert counted(tally) == (300, 0, 0)


def test_above_the_rate_successes_are_left_out_and_failures_are_not() -> None:
    wire, tally = Wire(), Tally()
    with telling(wire, EventSettings(rate=0, flush_ms=1), tally) as events:
        for number in range(1, 101):
            of = chunk(50, number)
            land(events, of, ends(of, s17=OutcomeStatus.FAILED))
            wait_until(lambda number=number: wire.kinds.count("failed") == number, "the failure is told")  # type: ignore[misc]
    assert wire.kinds.count("succeeded") == 0
    assert counted(tally) == (300, 3 * 4900, 0)


def test_in_a_full_buffer_failures_take_the_place_of_successes() -> None:
    wire, tally = Wire(), Tally()
    settings = EventSettings(rate=1e9, buffer=30, flush_ms=1)
    with telling(wire, settings, tally) as events:
        wire.may_send.clear()
        land(events, chunk(1), ends(chunk(1)))
        wait_until(lambda: len(events._shelf) == 0, "the thread is stuck with the first")
        land(events, chunk(15, 2), ends(chunk(15, 2)))  # ten fit
        of = chunk(8, 3)
        land(events, of, ends(of, **{f"s{n}": OutcomeStatus.FAILED for n in range(1, 9)}))
        of = chunk(4, 4)
        land(events, of, ends(of, **{f"s{n}": OutcomeStatus.FAILED for n in range(1, 5)}))
        wire.may_send.set()
    assert (wire.kinds.count("failed"), wire.kinds.count("succeeded")) == (10, 1)
    assert counted(tally) == (33, 0, 3 * (5 + 8 + 4))


def test_while_redis_is_away_everything_is_dropped_and_counted_and_nobody_waits() -> None:
    wire, tally = Wire(), Tally()
    with telling(wire, NEVER_FULL, tally) as events:
        wire.is_away = True
        land(events, chunk(10), ends(chunk(10)))
        wait_until(lambda: tally.events_dropped == 30, "they are counted")
        wire.is_away = False
        land(events, chunk(10, 2), ends(chunk(10, 2)))
    assert counted(tally) == (30, 0, 30)


def test_a_job_that_runs_long_is_begun_once_and_always_ended() -> None:
    wire, tally, of = Wire(), Tally(), chunk(3)
    with telling(wire, EventSettings(rate=0, flush_ms=1), tally, running=2) as events:
        events.open(Delivery("node@host", 7, NOW.timestamp(), None, 3))
        events.begin(of, runtimes(of))
        wait_until(lambda: wire.kinds == ["received", "started"], "it is shown while it runs")
        events.land(of, runtimes(of), Landing(1, ends(of)))
        events.end()
    assert wire.kinds == ["received", "started", "succeeded"]
    assert {event["uuid"] for message in wire.messages for event in message} == {"1.2"}


def test_a_rate_holds_over_time() -> None:
    now = [0.0]
    rate = Rate(10, lambda: now[0])
    assert rate.take(25) == 10
    assert rate.take(25) == 0
    now[0] += 0.35
    assert rate.take(25) == 3
    now[0] += 100
    assert rate.take(25) == 10
