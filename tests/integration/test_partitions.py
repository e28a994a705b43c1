"""Partitions of `outcomes`: always there before an outcome needs one, whoever makes them and whenever."""

from __future__ import annotations

from threading import Barrier

import pytest
from sqlalchemy import Engine, text

from app.producer.dispatch import Dispatcher, Written
from app.storage.partitions import AHEAD, ensure_partitions, partition_name
from app.storage.schema import PARTITION_SPAN
from tests.building import candle, definition, outcome, register
from tests.integration.ledger import build_dispatcher, land_on, together

LIST = text("""
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = CAST('outcomes' AS regclass) ORDER BY c.relname
""")


def partitions(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(LIST)}


def next_dispatch_id(engine: Engine, number: int) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE dispatches ALTER COLUMN id RESTART WITH {number}"))


def land_all(engine: Engine, written: Written) -> dict[int, str]:
    """Land an outcome for every dispatch; return the partition each is in."""
    for envelope in written.envelopes:
        chunk = envelope.chunk
        land_on(engine, chunk.dispatch_id, [outcome(key.strategy_id) for key in chunk.jobs])
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT dispatch_id, tableoid::regclass::text FROM outcomes"))
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def dispatcher(engine: Engine) -> Dispatcher:
    register(engine, definition("only"))
    return build_dispatcher(engine)


def test_first_partitions_are_there_after_the_migration(engine: Engine) -> None:
    found = partitions(engine)
    assert list(found) == [partition_name(number) for number in range(AHEAD + 1)]
    assert found[partition_name(1)] == f"FOR VALUES FROM ('{PARTITION_SPAN}') TO ('{2 * PARTITION_SPAN}')"


def test_making_them_again_changes_nothing(engine: Engine) -> None:
    before = partitions(engine)
    with engine.begin() as connection:
        assert ensure_partitions(connection) == (AHEAD + 1) * PARTITION_SPAN
    assert partitions(engine) == before


def test_ids_that_cross_a_boundary_land_on_both_sides(engine: Engine, dispatcher: Dispatcher) -> None:
    next_dispatch_id(engine, PARTITION_SPAN - 2)
    written = dispatcher.write([candle(n) for n in range(4)])
    low, high = partition_name(0), partition_name(1)
    assert land_all(engine, written) == {
        PARTITION_SPAN - 2: low,
        PARTITION_SPAN - 1: low,
        PARTITION_SPAN: high,
        PARTITION_SPAN + 1: high,
    }


def test_dispatcher_that_lives_long_makes_them_as_it_goes(engine: Engine, dispatcher: Dispatcher) -> None:
    for number in range(1, 6):
        next_dispatch_id(engine, number * PARTITION_SPAN - 1)
        written = dispatcher.write([candle(2 * number), candle(2 * number + 1)])
        found = land_all(engine, written)
        assert found[number * PARTITION_SPAN - 1] == partition_name(number - 1)
        assert found[number * PARTITION_SPAN] == partition_name(number)
    assert len(partitions(engine)) > 5


def test_ids_far_beyond_every_partition_land(engine: Engine, dispatcher: Dispatcher) -> None:
    far = 37 * PARTITION_SPAN + 5
    dispatcher.write([candle(0)])
    next_dispatch_id(engine, far)
    assert land_all(engine, dispatcher.write([candle(1)])) == {far: partition_name(37)}


def test_batch_longer_than_a_partition_is_ahead_lands(engine: Engine, dispatcher: Dispatcher) -> None:
    # the first id of the batch is in the last partition there is, its last ids are beyond
    next_dispatch_id(engine, (AHEAD + 1) * PARTITION_SPAN - 1)
    written = dispatcher.write([candle(n) for n in range(3)])
    assert set(land_all(engine, written).values()) == {partition_name(AHEAD), partition_name(AHEAD + 1)}


def test_two_producers_at_a_boundary_both_get_through(engine: Engine, dispatcher: Dispatcher) -> None:
    other = build_dispatcher(engine)
    for number in range(1, 5):
        first = number * (AHEAD + 1) * PARTITION_SPAN  # the first id without a partition
        next_dispatch_id(engine, first)
        at_once = Barrier(2)

        def write(each: Dispatcher, symbol: str, gate: Barrier = at_once, index: int = number) -> Written:
            gate.wait(timeout=10)
            return each.write([candle(index, symbol)])

        written = together(lambda: write(dispatcher, "ONE-USD"), lambda: write(other, "TWO-USD"))
        assert sorted(each.dispatch_ids for each in written) == [(first,), (first + 1,)]
        for each in written:
            land_all(engine, each)
