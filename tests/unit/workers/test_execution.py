"""One chunk in one slot, with the database and the broker replaced by lists: isolation, retries, recording."""

import random
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import numpy as np
import pytest

from app.broker import Envelope
from app.domain.candles import Candle, Timeframe
from app.domain.jobs import Chunk, JobKey, OutcomeStatus, Signal
from app.domain.strategies import Limits, Priority
from app.settings import WorkerSettings
from app.storage.landing import Landing
from app.storage.strategies import Revision
from app.strategies.registry import Registry
from app.strategies.sdk import Context, Strategy
from workers.execution import Executor
from workers.running import LONG_MS
from workers.runtime.limits import clock
from workers.runtime.strategies import RuntimeCache
from workers.runtime.windows import WindowCache, to_ms

OPENED = datetime(2024, 1, 1, tzinfo=UTC)
HISTORY = 100


class Good(Strategy):
    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, strength=0.5, edge=context.close)


class Raises(Strategy):
    def on_candle(self, context: Context) -> Signal:
        raise ZeroDivisionError("by\x00zero")


class Exits(Strategy):
    def on_candle(self, context: Context) -> Signal:
        raise SystemExit(3)


class OutOfMemory(Strategy):
    def on_candle(self, context: Context) -> Signal:
        raise MemoryError


class Hangs(Strategy):
    def on_candle(self, context: Context) -> Signal:
        while True:  # even a strategy that swallows everything is stopped
            try:
                signal.pause()
            except Exception:
                continue


class Nonsense(Strategy):
    def on_candle(self, context: Context) -> Signal:
        return "buy"  # type: ignore[return-value]


class Meddles(Strategy):
    def on_candle(self, context: Context) -> Signal:
        context.bars.close[:] = np.nan
        return Signal(action=1)


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Interrupts(Strategy):
    def on_candle(self, context):
        raise KeyboardInterrupt


class RaisesUnprintable(Strategy):
    def on_candle(self, context: Context) -> Signal:
        raise UnprintableError


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    clock.install()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class TakesLong(Strategy):
    def on_candle(self, context: Context) -> Signal:
        time.sleep(LONG_MS / 1000)
        return Signal(action=1)


OUTCOMES, ATTEMPTS = attrgetter("outcomes"), attrgetter("attempts")


class Slot:
    """An executor whose strategies are the classes of this module."""

    def __init__(self, *classes: type[Strategy], **limit: int) -> None:
        self.landed: list[Landing] = []
        self.calls = 0
        self.published: list[Envelope] = []
        self.classes = classes
        self.ended: frozenset[int] = frozenset()
        self.limits = Limits(**limit)
        windows = WindowCache(self.load_rows, length=32, most_series=4)
        runtimes = RuntimeCache(self.load_revisions, Registry((__name__,)), 100)
        self.executor = Executor(
            windows=windows, runtimes=runtimes, land_all=self.land_all, publish=self.published.extend,
            load_ended=lambda ids: dict.fromkeys(ids, self.ended),
            settings=WorkerSettings(), worker="test",
        )  # fmt: skip

    def load_rows(self, symbol, timeframe, *, until, count, after):
        opened = [OPENED + timedelta(hours=hour) for hour in range(HISTORY)]
        return [(to_ms(o), 1.0, 1.0, 1.0, 1.0 + n, 1.0) for n, o in enumerate(opened) if o <= until][-count:]

    def load_revisions(self, keys):
        return {
            key: Revision(
                key, f"s{key.strategy_id}", f"{__name__}:{self.classes[key.strategy_id].__name__}", {}, self.limits
            )
            for key in keys
            if key.strategy_id < len(self.classes)
        }

    def land_all(self, landings, worker, moving=None):
        self.calls += 1
        self.landed += landings
        return {}

    def run(self, attempt: int = 0, extra: tuple[int, ...] = (), age_s: float = 0.0) -> Landing:
        self.landed.clear()
        self.executor.execute([self.chunk(attempt, extra, datetime.now(UTC) - timedelta(seconds=age_s))])
        assert self.landed, "nothing was recorded"
        ended, tried = ([each for landing in self.landed for each in rows(landing)] for rows in (OUTCOMES, ATTEMPTS))
        return Landing(self.landed[0].dispatch_id, ended, tried)

    def chunk(self, attempt: int = 0, extra: tuple[int, ...] = (), created_at: datetime | None = None) -> Chunk:
        created_at = created_at or datetime.now(UTC)
        candle = Candle(
            symbol="A-B", timeframe=Timeframe.H1, open_time=OPENED + timedelta(hours=HISTORY - 1),
            open=1.0, high=101.0, low=1.0, close=100.0, volume=1.0,
        )  # fmt: skip
        return Chunk(
            dispatch_id=1, candle=candle, priority=Priority.NORMAL, correlation_id="c", attempt=attempt,
            jobs=tuple(JobKey(number, 1) for number in (*range(len(self.classes)), *extra)),
            created_at=created_at, deadline=created_at + timedelta(seconds=60),
            expires_at=created_at + timedelta(seconds=300), catalogue_version=1,
        )  # fmt: skip


BAD = (Raises, Exits, OutOfMemory, Nonsense, Meddles, RaisesUnprintable)


def test_every_bad_neighbour_fails_alone_and_the_good_are_untouched():
    alone = Slot(Good, Good).run()
    mixed = Slot(Good, *BAD, Good, retries=0).run()
    by_id = {outcome.strategy_id: outcome for outcome in mixed.outcomes}
    assert [by_id[number].status for number in range(1, 1 + len(BAD))] == [OutcomeStatus.FAILED] * len(BAD)
    assert (
        by_id[0].signal
        == by_id[len(BAD) + 1].signal
        == alone.outcomes[0].signal
        == Signal(action=1, strength=0.5, edge=100.0)
    )
    assert not mixed.attempts


@pytest.mark.parametrize(
    ("bad", "error_class", "text"),
    [
        (Raises, "ZeroDivisionError", "by�zero"),
        (Exits, "SystemExit", "3"),
        (OutOfMemory, "MemoryLimitError", "expected at most 512 MiB more"),
        (Nonsense, "InvalidSignalError", "'s0' on A-B 1h candle opened"),
        (Meddles, "ValueError", "read-only"),
        (RaisesUnprintable, "UnprintableError", "cannot be shown"),
        (Interrupts, "KeyboardInterrupt", "KeyboardInterrupt without a message"),
    ],
)
def test_the_error_is_recorded(bad, error_class, text):
    (outcome,) = Slot(bad, retries=0).run().outcomes
    assert outcome.error_class == error_class
    assert text in (outcome.error or "")
    assert outcome.signal is None


def test_what_ran_with_a_long_job_is_recorded_before_the_next_one_runs():
    slot = Slot(Good, TakesLong, Good)
    landed = slot.executor.execute([slot.chunk()])
    assert [[outcome.strategy_id for outcome in landing.outcomes] for landing in slot.landed] == [[0, 1], [2]]
    assert [outcome.succeeded for each in landed for outcome in each.outcomes] == [True] * 3
    assert slot.calls == 2


def test_a_job_past_its_soft_limit_is_stopped_and_its_neighbour_runs():
    started = time.perf_counter()
    landed = Slot(Hangs, Good, timeout_ms=50, retries=0).run()
    assert time.perf_counter() - started < 5
    assert [outcome.status for outcome in landed.outcomes] == [OutcomeStatus.TIMED_OUT, OutcomeStatus.SUCCEEDED]
    assert "within 50 ms" in (landed.outcomes[0].error or "")
    assert landed.outcomes[0].processing_ms >= 50


def test_a_failed_job_is_sent_again_alone_until_its_retries_are_used():
    slot = Slot(Good, Raises, retries=2)
    first = slot.run()
    assert [outcome.strategy_id for outcome in first.outcomes] == [0]
    assert [(a.strategy_id, a.attempt, a.status) for a in first.attempts] == [(1, 0, OutcomeStatus.FAILED)]
    (again,) = slot.published
    assert again.chunk.jobs == (JobKey(1, 1),)
    assert (again.chunk.attempt, again.label, again.chunk.task_id) == (1, "s1", "1.1")
    assert again.countdown_s is not None and 0.25 <= again.countdown_s <= 0.5
    last = slot.run(attempt=2)
    assert [(o.strategy_id, o.attempt) for o in last.outcomes] == [(0, 2), (1, 2)]
    assert len(slot.published) == 1


def test_waits_grow_with_the_attempts_up_to_the_cap():
    settings = WorkerSettings(retry_base_s=1.0, retry_cap_s=5.0)
    assert [settings.retry_delay_s(attempt) for attempt in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]


def test_retries_spread_out():
    random.seed(1)
    slot = Slot(Raises)
    for _ in range(20):
        slot.run()
    delays = {envelope.countdown_s for envelope in slot.published}
    assert len(delays) == 20


def test_an_unknown_strategy_fails_once_and_its_neighbour_lands():
    landed = Slot(Good).run(extra=(7,))
    assert [outcome.status for outcome in landed.outcomes] == [OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED]
    assert landed.outcomes[1].error_class == "UnknownStrategyError"
    assert not landed.attempts


def test_times_are_recorded():
    (outcome,) = Slot(Good).run().outcomes
    assert outcome.processing_ms > 0
    assert outcome.queued_ms >= 0


def test_an_old_chunk_runs_only_what_is_still_missing():
    slot = Slot(Good, Good, Good)
    slot.ended = frozenset({0, 2})
    assert [outcome.strategy_id for outcome in slot.run(age_s=60).outcomes] == [1]
    assert [outcome.strategy_id for outcome in slot.run(attempt=1).outcomes] == [1]
    assert len(slot.run().outcomes) == 3  # a fresh one is taken at its word
    slot.ended = frozenset({0, 1, 2})
    slot.landed.clear()
    assert slot.executor.execute([slot.chunk(created_at=datetime.now(UTC) - timedelta(seconds=60))]) == []
    assert slot.landed == []


def test_a_chunk_out_of_date_is_not_executed():
    landed = Slot(Raises, Good).run(age_s=301)
    assert [outcome.status for outcome in landed.outcomes] == [OutcomeStatus.EXPIRED] * 2
    assert not landed.attempts


def test_chunks_of_one_message_land_together_and_retries_travel_apart():
    slot = Slot(Raises, Good)
    chunks = [slot.chunk().model_copy(update={"dispatch_id": number}) for number in (7, 8)]
    landed = slot.executor.execute(chunks)
    assert [landing.dispatch_id for landing in slot.landed] == [7, 8]
    assert [len(each.outcomes) for each in landed] == [1, 1]
    assert [envelope.chunk.task_id for envelope in slot.published] == ["7.0", "8.0"]


def test_a_job_that_killed_its_slot_is_buried_after_its_retries():
    slot = Slot(Good, retries=1)
    slot.executor.bury(slot.chunk(), OutcomeStatus.CRASHED, "exit code 11")
    (landing,) = slot.landed
    assert (landing.outcomes, landing.crashed) == ([], [0])
    assert [(a.status, a.error_class, a.error) for a in landing.attempts] == [
        (OutcomeStatus.CRASHED, "SlotDiedError", "exit code 11")
    ]
    assert slot.published[0].chunk.attempt == 1
    slot.landed.clear()
    slot.executor.bury(slot.chunk(attempt=1), OutcomeStatus.CRASHED, "exit code 11")
    assert [outcome.status for outcome in slot.landed[0].outcomes] == [OutcomeStatus.CRASHED]
    assert len(slot.published) == 1
