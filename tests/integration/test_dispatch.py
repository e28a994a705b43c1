"""The dispatcher: who gets a candle, in which chunks, on which queues, all in one transaction with the candle."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, text

from app.broker import Envelope
from app.domain.candles import Timeframe
from app.domain.strategies import Limits, Priority, StrategyStatus
from app.errors import StorageUnavailableError
from app.producer.dispatch import Dispatcher
from app.storage.engine import build_engine
from app.storage.strategies import set_status
from tests.building import candle, definition, register
from tests.integration.ledger import build_dispatcher, rows


def asked(engine: Engine, symbol: str, timeframe: Timeframe = Timeframe.H1) -> list[str]:
    """Return the names of the strategies that the only dispatch of a series expects."""
    query = """
        SELECT s.name FROM dispatches d JOIN strategies s ON s.id = ANY(d.strategy_ids)
        WHERE d.symbol = :symbol AND d.timeframe = :timeframe ORDER BY s.name
    """
    return [row[0] for row in rows(engine, query, symbol=symbol, timeframe=timeframe.value)]


def jobs(envelopes: Sequence[Envelope]) -> list[tuple[int, ...]]:
    return [tuple(key.strategy_id for key in envelope.chunk.jobs) for envelope in envelopes]


def test_subscriptions_decide_who_is_asked(engine: Engine) -> None:
    register(
        engine,
        definition("all"),
        definition("bitcoin", symbols=["BTC-*"]),
        definition("dollar", symbols=["*-USD", "*-USDT"]),
        definition("one-letter", symbols=["?-USD"]),
        definition("exact", symbols=["ETH-USD"], timeframes=["4h"]),
        definition("slow", timeframes=["4h", "1d"]),
        definition("lower", symbols=["btc-*"]),
    )
    dispatcher = build_dispatcher(engine)
    for symbol, frame, expected in (
        ("BTC-USD", Timeframe.H1, ["all", "bitcoin", "dollar"]),
        ("BTC-EUR", Timeframe.H4, ["all", "bitcoin", "slow"]),
        ("ETH-USD", Timeframe.H4, ["all", "dollar", "exact", "slow"]),
        ("ETH-USD", Timeframe.H1, ["all", "dollar"]),
        ("X-USD", Timeframe.H1, ["all", "dollar", "one-letter"]),
        ("XX-USDT", Timeframe.H1, ["all", "dollar"]),
    ):
        dispatcher.write([candle(0, symbol, frame)])
        assert asked(engine, symbol, frame) == expected, (symbol, frame)


def test_only_active_strategies_are_asked_and_a_change_works_from_the_next_candle_on(engine: Engine) -> None:
    register(
        engine,
        definition("here"),
        definition("paused", status=StrategyStatus.PAUSED),
        definition("gone", status=StrategyStatus.UNLOADED),
    )
    dispatcher = build_dispatcher(engine)
    assert jobs(dispatcher.write([candle(0)]).envelopes) == [(1,)]
    with engine.begin() as connection:
        set_status(connection, "paused", StrategyStatus.ACTIVE)
        set_status(connection, "here", StrategyStatus.PAUSED)
    assert jobs(dispatcher.write([candle(1)]).envelopes) == [(2,)]
    register(engine, definition("new"))
    assert jobs(dispatcher.write([candle(2)]).envelopes) == [(2, 4)]


def test_candle_that_nobody_wants_is_stored_all_the_same(engine: Engine) -> None:
    register(engine, definition("other", symbols=["ETH-*"]))
    written = build_dispatcher(engine).write([candle(0), candle(1)])
    assert (written.candles, written.dispatch_ids, written.envelopes) == (2, (), ())
    assert rows(engine, "SELECT count(*) FROM candles") == [(2,)]
    assert rows(engine, "SELECT count(*) FROM dispatches") == [(0,)]


@pytest.mark.parametrize(("most", "sizes"), [(32, [25, 25]), (50, [50]), (1, [1] * 50), (7, [6, 6, 6, 6, 6, 6, 7, 7])])
def test_chunks_hold_every_job_once_and_no_more_than_allowed(engine: Engine, most: int, sizes: list[int]) -> None:
    register(engine, *(definition(f"s{n}") for n in range(50)))
    written = build_dispatcher(engine, jobs_in_chunk=most).write([candle(0)])
    assert sorted(len(each) for each in jobs(written.envelopes)) == sizes
    assert sorted(job for each in jobs(written.envelopes) for job in each) == list(range(1, 51))
    assert len({envelope.chunk.task_id for envelope in written.envelopes}) == len(sizes)


def test_urgent_chunks_come_first_and_candles_in_order(engine: Engine) -> None:
    register(
        engine,
        definition("low", priority=Priority.LOW),
        definition("normal"),
        definition("high", priority=Priority.HIGH),
    )
    written = build_dispatcher(engine).write([candle(0), candle(0, "ETH-USD"), candle(1)])
    found = [(e.chunk.priority.value, e.chunk.candle.symbol, e.chunk.candle.open_time) for e in written.envelopes]
    order = [(c.symbol, c.open_time) for c in (candle(0), candle(0, "ETH-USD"), candle(1))]
    assert found == [(queue, *each) for queue in ("high", "normal", "low") for each in order]


def test_candle_seen_before_dispatches_nothing(engine: Engine) -> None:
    register(engine, definition("one"))
    dispatcher = build_dispatcher(engine)
    dispatcher.write([candle(0), candle(1)])
    again = dispatcher.write([candle(0), candle(1)])
    assert (again.candles, again.dispatch_ids, again.envelopes) == (0, (), ())
    assert build_dispatcher(engine).write([candle(0)]).dispatch_ids == ()  # another producer: the same
    assert rows(engine, "SELECT count(*) FROM dispatches") == [(2,)]


def test_correction_is_a_dispatch_of_its_own(engine: Engine) -> None:
    register(engine, definition("one"))
    dispatcher = build_dispatcher(engine)
    first = dispatcher.write([candle(0), candle(1)])
    second = dispatcher.write([candle(0, close=99.5)])
    assert len(second.dispatch_ids) == 1
    assert second.dispatch_ids[0] not in first.dispatch_ids
    (envelope,) = second.envelopes
    assert (envelope.chunk.candle.revision, envelope.chunk.candle.close) == (1, 99.5)
    assert (envelope.chunk.previous_open_time, envelope.chunk.rewrites) == (None, 1)
    revisions = "SELECT revision FROM dispatches WHERE open_time = :opened ORDER BY id"
    assert rows(engine, revisions, opened=candle(0).open_time) == [(0,), (1,)]


def test_chunk_says_what_the_ledger_says(engine: Engine) -> None:
    limits = [Limits(timeout_ms=100), Limits(timeout_ms=250)]
    register(engine, definition("one", weight=1.5, limits=limits[0]), definition("two", "macd", limits=limits[1]))
    register(engine, definition("one", weight=1.5, limits=limits[0], params={"fast": 5}))  # its second revision
    written = build_dispatcher(engine).write([candle(0), candle(1)])
    envelope = written.envelopes[1]
    chunk = envelope.chunk
    stored = rows(
        engine,
        "SELECT id, strategy_ids, strategy_revisions, weights, expected, landed, state, correlation_id, created_at, "
        "deadline, published_at FROM dispatches WHERE id = :id",
        id=chunk.dispatch_id,
    )
    expected = (chunk.dispatch_id, [1, 2], [2, 1], [1.5, 1.0], 2, 0, "open", chunk.correlation_id, chunk.created_at)
    assert stored == [(*expected, chunk.deadline, None)]
    assert [tuple(key) for key in chunk.jobs] == [(1, 2), (2, 1)]
    assert 59 < (chunk.deadline - chunk.created_at).total_seconds() < 61
    assert chunk.previous_open_time == candle(0).open_time
    assert rows(engine, "SELECT version FROM catalogue") == [(chunk.catalogue_version,)]
    assert envelope.hard_limit_s == pytest.approx(0.25 + 5.0)  # the longest of its jobs
    assert envelope.label is None
    assert envelope.arguments == "BTC-USD 1h 2024-01-01T01:00Z: one, two"


def test_single_job_is_shown_under_its_strategys_name(engine: Engine) -> None:
    register(engine, definition("trend"), definition("urgent", priority=Priority.HIGH))
    written = build_dispatcher(engine).write([candle(0)])
    assert [envelope.label for envelope in written.envelopes] == ["urgent", "trend"]
    assert [envelope.chunk.task_id for envelope in written.envelopes] == ["1.2", "1.1"]


def test_correlation_ids_are_each_dispatchs_own(engine: Engine) -> None:
    register(engine, definition("one"))
    build_dispatcher(engine).write([candle(n) for n in range(20)])
    assert rows(engine, "SELECT count(DISTINCT correlation_id) FROM dispatches") == [(20,)]


def test_every_sending_is_counted(engine: Engine) -> None:
    register(engine, definition("one"))
    dispatcher = build_dispatcher(engine)
    ids = dispatcher.write([candle(0), candle(1), candle(2)]).dispatch_ids
    dispatcher.mark_published(ids[:2])
    dispatcher.mark_published(ids[:1])
    sent = rows(engine, "SELECT id, sends, published_at IS NOT NULL FROM dispatches ORDER BY id")
    assert sent == [(ids[0], 2, True), (ids[1], 1, True), (ids[2], 0, False)]


def test_batch_that_fails_leaves_nothing_and_can_be_written_again(engine: Engine) -> None:
    register(engine, definition("one"))
    dispatcher: Dispatcher = build_dispatcher(engine)
    refuse = "ALTER TABLE dispatches ADD CONSTRAINT refused CHECK (symbol <> 'ETH-USD')"
    batch = [candle(0), candle(0, "ETH-USD")]
    with engine.begin() as connection:
        connection.execute(text(refuse))
    with pytest.raises(Exception, match="refused"):
        dispatcher.write(batch)
    assert rows(engine, "SELECT count(*) FROM candles") == [(0,)]
    assert rows(engine, "SELECT count(*) FROM dispatches") == [(0,)]
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE dispatches DROP CONSTRAINT refused"))
    assert len(dispatcher.write(batch).dispatch_ids) == 2


def test_database_that_is_away_is_told_as_transient() -> None:
    nowhere = build_engine("postgresql+psycopg://nobody:secret@127.0.0.1:9/none", name="tests")
    with pytest.raises(StorageUnavailableError, match="Postgres is away"):
        build_dispatcher(nowhere).write([candle(0)])
