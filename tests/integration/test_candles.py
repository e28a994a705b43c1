"""Candles and series: new ones, known ones, corrections, late ones, and two producers of the same."""

from __future__ import annotations

from functools import partial
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine

from app.domain.candles import Candle, Timeframe
from app.producer.dispatch import Written
from app.storage.candles import RecordedCandle, load_window, record_candles
from tests.building import candle, definition, register, walk
from tests.integration.ledger import build_dispatcher, rows, together


def record(engine: Engine, *candles: Candle) -> list[RecordedCandle]:
    with engine.begin() as connection:
        return record_candles(connection, candles, "test")


def placed(recorded: list[RecordedCandle]) -> list[tuple[int, int | None, int]]:
    """Return (revision, hours since the candle before it, rewrites) of each."""
    hours = [
        None if r.previous_open_time is None else round((r.candle.open_time - r.previous_open_time).total_seconds())
        for r in recorded
    ]
    return [
        (r.candle.revision, None if gap is None else gap // 3600, r.rewrites)
        for r, gap in zip(recorded, hours, strict=True)
    ]


def stored(engine: Engine, symbol: str = "BTC-USD") -> list[tuple[int, float, int]]:
    """Return (hours since the first, close, revision) of a series."""
    query = "SELECT open_time, close, revision FROM candles WHERE symbol = :symbol ORDER BY open_time"
    start = candle(0).open_time
    return [
        (round((opened - start).total_seconds()) // 3600, close, revision)
        for opened, close, revision in rows(engine, query, symbol=symbol)
    ]


def test_new_candles_follow_each_other(engine: Engine) -> None:
    assert placed(record(engine, candle(0), candle(1), candle(4))) == [(0, None, 0), (0, 1, 0), (0, 3, 0)]
    assert placed(record(engine, candle(5))) == [(0, 1, 0)]
    assert [hour for hour, *_ in stored(engine)] == [0, 1, 4, 5]


def test_known_candle_is_left_alone(engine: Engine) -> None:
    record(engine, candle(0), candle(1))
    before = rows(engine, "SELECT * FROM candles ORDER BY open_time")
    assert record(engine, candle(0), candle(1)) == []
    assert rows(engine, "SELECT * FROM candles ORDER BY open_time") == before
    assert placed(record(engine, candle(1), candle(2))) == [(0, 1, 0)]


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume"])
def test_any_other_value_is_a_correction(engine: Engine, field: str) -> None:
    record(engine, candle(0), candle(1), candle(2))
    changed: dict[str, Any] = {"open": 100.25, "high": 102.0, "low": 98.0, "close": 100.75, "volume": 0.0}
    corrected = candle(1, **{field: changed[field]})
    assert placed(record(engine, corrected)) == [(1, None, 1)]
    assert placed(record(engine, corrected)) == []
    assert placed(record(engine, candle(1))) == [(2, None, 2)]  # the first version again is a correction as well
    assert placed(record(engine, candle(3))) == [(0, 1, 2)]


def test_correction_of_the_newest_rewrites_too(engine: Engine) -> None:
    record(engine, candle(0), candle(1))
    assert placed(record(engine, candle(1, close=99.5), candle(2))) == [(1, None, 1), (0, 1, 1)]


def test_late_candle_rewrites_the_past_without_becoming_the_newest(engine: Engine) -> None:
    record(engine, candle(0), candle(3))
    assert placed(record(engine, candle(1))) == [(0, None, 1)]
    assert placed(record(engine, candle(4))) == [(0, 1, 1)]
    assert [hour for hour, *_ in stored(engine)] == [0, 1, 3, 4]


def test_candle_before_the_first_is_late(engine: Engine) -> None:
    record(engine, candle(5))
    assert placed(record(engine, candle(0), candle(6))) == [(0, None, 1), (0, 1, 1)]


def test_series_are_apart_by_symbol_and_timeframe(engine: Engine) -> None:
    series = [(symbol, frame) for symbol in ("A-USD", "B-USD", "C-USD") for frame in (Timeframe.H1, Timeframe.H4)]
    batch = [candle(n, symbol, frame) for n in range(3) for symbol, frame in series]
    recorded = record(engine, *batch)
    assert [r.candle for r in recorded] == batch  # in the given order
    assert len(rows(engine, "SELECT * FROM series")) == len(series)
    record(engine, candle(1, "A-USD", close=99.5))
    rewrites = rows(engine, "SELECT symbol, timeframe FROM series WHERE rewrites > 0")
    assert rewrites == [("A-USD", "1h")]


def test_many_series_in_one_batch(engine: Engine) -> None:
    register(engine, definition("all"))
    symbols = [f"S{n:03d}-USD" for n in range(120)]
    written = build_dispatcher(engine).write([candle(n, symbol) for n in range(2) for symbol in symbols])
    assert (written.candles, len(written.dispatch_ids)) == (240, 240)
    assert list(written.dispatch_ids) == sorted(written.dispatch_ids)
    opened = rows(engine, "SELECT symbol, open_time FROM dispatches ORDER BY id")
    assert opened == [(symbol, candle(n).open_time) for n in range(2) for symbol in symbols]


def test_two_producers_of_the_same_candles_dispatch_each_once(engine: Engine) -> None:
    register(engine, definition("one"), definition("two"))
    producers = [build_dispatcher(engine) for _ in range(3)]
    for round_ in range(6):
        # a new series in every round: the first candles of a series find no row to lock
        batch = [candle(n, f"RACE-{round_ % 3}") for n in range(10 * round_, 10 * round_ + 10)]
        gate = Barrier(len(producers))

        def write(number: int, candles: list[Candle] = batch, gate: Barrier = gate) -> Written:
            gate.wait(timeout=10)
            return producers[number].write(candles)

        written = together(*(lambda n=n: write(n) for n in range(len(producers))))
        assert sum(each.candles for each in written) == len(batch)
        assert sum(len(each.envelopes) for each in written) == len(batch)
    per_candle = "SELECT count(*) FROM dispatches GROUP BY symbol, open_time, revision"
    assert rows(engine, per_candle) == [(1,)] * 60
    assert rows(engine, "SELECT max(revision), count(*) FROM candles") == [(0, 60)]
    assert rows(engine, "SELECT DISTINCT rewrites FROM series") == [(0,)]


def test_two_producers_that_disagree_make_one_correction(engine: Engine) -> None:
    register(engine, definition("one"))
    producers = [build_dispatcher(engine) for _ in range(2)]
    for number in range(10):
        gate = Barrier(2)

        def write(index: int, close: float, n: int = number, gate: Barrier = gate) -> Written:
            gate.wait(timeout=10)
            # every other round begins a series, which has no row to lock yet
            return producers[index].write([candle(n % 2, f"S{n // 2}-USD", close=close)])

        together(partial(write, 0, 100.1), partial(write, 1, 100.2))
    query = "SELECT array_agg(revision ORDER BY revision) FROM dispatches GROUP BY symbol, open_time"
    assert rows(engine, query) == [([0, 1],)] * 10
    assert rows(engine, "SELECT DISTINCT revision, close IN (100.1, 100.2) FROM candles") == [(1, True)]
    assert rows(engine, "SELECT rewrites FROM series") == [(2,)] * 5


def test_batches_of_the_same_series_in_opposite_order_do_not_deadlock(engine: Engine) -> None:
    register(engine, definition("one"))
    symbols = [f"S{n:02d}-USD" for n in range(30)]
    producers = [build_dispatcher(engine) for _ in range(2)]
    for number in range(8):
        gate = Barrier(2)

        def write(index: int, order: list[str], n: int = number, gate: Barrier = gate) -> Written:
            gate.wait(timeout=10)
            return producers[index].write([candle(n, symbol) for symbol in order])

        written = together(lambda: write(0, symbols), lambda: write(1, symbols[::-1]))
        assert sum(each.candles for each in written) == len(symbols)


def test_window_is_the_newest_candles_up_to_one(engine: Engine) -> None:
    candles = walk("W-USD", 20)
    record(engine, *candles)
    record(engine, *walk("OTHER-USD", 20, seed=8))

    def loaded(until: int, count: int, after: int | None = None) -> list[float]:
        with engine.connect() as connection:
            since = None if after is None else candles[after].open_time
            window = load_window(connection, "W-USD", "1h", candles[until].open_time, count, since)
        indexes = [next(n for n, c in enumerate(candles) if c.open_time.timestamp() * 1000 == row[0]) for row in window]
        assert [row[1:] for row in window] == [
            (c.open, c.high, c.low, c.close, c.volume) for c in (candles[n] for n in indexes)
        ]
        return [float(n) for n in indexes]

    assert loaded(until=9, count=4) == [6, 7, 8, 9]
    assert loaded(until=2, count=10) == [0, 1, 2]
    assert loaded(until=9, count=10, after=7) == [8, 9]
    assert loaded(until=9, count=1, after=7) == [9]
    assert loaded(until=9, count=5, after=9) == []
