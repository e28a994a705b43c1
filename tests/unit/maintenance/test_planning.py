"""Lost jobs: which go out again, in which messages, and how the others end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.domain.candles import Candle, Timeframe
from app.domain.jobs import OutcomeStatus
from app.domain.strategies import Limits, Priority, RegisteredStrategy, StrategyDefinition, StrategyStatus
from app.maintenance.planning import Catalogue, plan
from app.maintenance.sending import Outbox, Rebuilder
from app.storage.unfinished import MissingJob, Unfinished

NOW = datetime(2024, 1, 1, tzinfo=UTC)
CANDLE = Candle(
    symbol="BTC-USD", timeframe=Timeframe.H1, open_time=NOW, open=1.0, high=1.0, low=1.0, close=1.0, volume=0.0
)


def strategy(number: int, status: StrategyStatus = StrategyStatus.ACTIVE, priority: Priority = Priority.NORMAL):
    definition = StrategyDefinition(
        name=f"s{number}", implementation="x", status=status, priority=priority, limits=Limits(timeout_ms=2000)
    )
    return RegisteredStrategy(id=number, revision=9, definition=definition)


def dispatch(*missing: MissingJob, sends: int = 1, candle: Candle | None = CANDLE, number: int = 5) -> Unfinished:
    return Unfinished(
        id=number,
        candle=candle,
        rewrites=3,
        correlation_id="c",
        created_at=NOW,
        deadline=NOW,
        expires_at=NOW + timedelta(minutes=5),
        published_at=NOW,
        sends=sends,
        missing=missing,
    )


def rebuilder(catalogue: Catalogue, jobs_in_chunk: int = 32, queue_limit: int = 100) -> Rebuilder:
    most = {priority.value: queue_limit for priority in Priority}
    return Rebuilder(catalogue, jobs_in_chunk=jobs_in_chunk, hard_grace_s=5.0, most=most)


def test_how_each_kind_of_lost_job_goes_on() -> None:
    known = [
        strategy(1),
        strategy(2, StrategyStatus.PAUSED),
        strategy(3, StrategyStatus.QUARANTINED),
        strategy(4),
        strategy(6, StrategyStatus.UNLOADED),
    ]
    catalogue = Catalogue(7, {each.id: each for each in known}, frozenset({4}))
    jobs = [MissingJob(number, 1) for number in range(1, 7)]
    found = plan(dispatch(*jobs), jobs, catalogue, most_sends=10)
    assert [job.strategy_id for job in found.send] == [1, 2, 6]
    ends = {(end.status, end.reason): [job.strategy_id for job in jobs] for end, jobs in found.ends.items()}
    assert ends == {
        (OutcomeStatus.SKIPPED, "Quarantined"): [3],
        (OutcomeStatus.SKIPPED, "BreakerOpen"): [4],
        (OutcomeStatus.FAILED, "UnknownStrategyError"): [5],
    }


@given(st.integers(0, 20), st.integers(1, 20), st.booleans())
def test_nothing_goes_out_more_often_than_allowed_or_without_its_candle(
    sends: int, most: int, has_candle: bool
) -> None:
    job = MissingJob(1, 1)
    found = plan(
        dispatch(job, sends=sends, candle=CANDLE if has_candle else None), [job], Catalogue(1, {1: strategy(1)}), most
    )
    assert bool(found.send) == (has_candle and sends < most)
    assert found.ended == 1 - len(found.send)


@given(
    attempts=st.dictionaries(st.integers(1, 200), st.none() | st.integers(0, 3), min_size=1, max_size=80),
    sends=st.integers(0, 9),
    size=st.integers(1, 64),
    data=st.data(),
)
def test_every_job_is_in_exactly_one_message_of_its_queue_attempt_and_revision(
    attempts: dict[int, int | None], sends: int, size: int, data: st.DataObject
) -> None:
    priorities = {number: data.draw(st.sampled_from(list(Priority))) for number in attempts}
    known = {number: strategy(number, priority=priorities[number]) for number in attempts}
    jobs = [MissingJob(number, 2, attempts[number]) for number in sorted(attempts)]
    built = rebuilder(Catalogue(7, known), size, queue_limit=100).envelopes(dispatch(*jobs, sends=sends), jobs)
    seen = [(key.strategy_id, each.chunk) for each in built for key in each.chunk.jobs]
    assert sorted(number for number, _ in seen) == sorted(attempts)
    for number, chunk in seen:
        assert chunk.priority is priorities[number]
        assert chunk.attempt == MissingJob(number, 2, attempts[number]).next_attempt
    assert all(key.revision == 2 for each in built for key in each.chunk.jobs)
    assert all(list(each.chunk.jobs) == sorted(each.chunk.jobs) for each in built)
    assert max(len(each.chunk.jobs) for each in built) <= (size if sends <= 1 else 1)


def test_a_dispatch_never_asks_for_more_room_than_a_queue_has() -> None:
    known = {number: strategy(number) for number in range(1, 301)}
    jobs = [MissingJob(number, 1) for number in known]
    built = rebuilder(Catalogue(7, known), queue_limit=100).envelopes(dispatch(*jobs, sends=5), jobs)
    assert len(built) == 100
    assert sum(len(each.chunk.jobs) for each in built) == 300


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    depths=st.lists(st.integers(0, 8), min_size=1, max_size=30),
)
def test_the_outbox_sends_each_message_once_in_order_and_within_the_limit(sizes: list[int], depths: list[int]) -> None:
    known = {number: strategy(number) for number in range(1, 10)}
    outbox, limit, sent, done = Outbox(), 8, [], []
    for number, size in enumerate(sizes):
        jobs = [MissingJob(each, 1) for each in range(1, size + 1)]
        outbox.put(rebuilder(Catalogue(1, known)).envelopes(dispatch(*jobs, sends=2, number=number), jobs))
    for depth in [*depths, *([0] * len(sizes))]:
        fit = outbox.fitting({"normal": limit - depth})
        assert len(fit) <= limit - depth
        done += outbox.take_out(fit)
        sent += [(each.chunk.dispatch_id, each.chunk.jobs[0].strategy_id) for each in fit]
    assert sent == [(number, each) for number, size in enumerate(sizes) for each in range(1, size + 1)]
    assert sorted(done) == list(range(len(sizes)))
    assert not outbox.dispatch_ids


def test_what_is_out_of_date_leaves_the_outbox() -> None:
    job = MissingJob(1, 1)
    outbox = Outbox()
    outbox.put(rebuilder(Catalogue(1, {1: strategy(1)})).envelopes(dispatch(job), [job]))
    outbox.drop_expired(NOW + timedelta(minutes=6))
    assert not outbox.dispatch_ids
