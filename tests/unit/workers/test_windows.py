"""Windows against the plain answer: the last candles, sliced out of the whole history."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.candles import Candle, Timeframe
from app.domain.jobs import Chunk, JobKey
from app.domain.strategies import Priority
from app.strategies.bars import Bars
from workers.runtime.windows import WindowCache, to_ms

START = datetime(2024, 1, 1, tzinfo=UTC)
LENGTH = 4


class History:
    """What Postgres would hold: candles by hour, some hours silent."""

    def __init__(self) -> None:
        self.closes: dict[int, float] = {}
        self.rewrites = 0
        self.loads = 0

    def load(self, symbol, timeframe, *, until, count, after):
        self.loads += 1
        hours = [h for h in sorted(self.closes) if at(h) <= until and (after is None or at(h) > after)]
        return [(to_ms(at(h)), *[self.closes[h]] * 4, float(h)) for h in hours[-count:]]

    def record(self, hour: int, close: float) -> Chunk:
        previous = max(self.closes, default=None)
        is_newest = previous is None or hour > previous
        self.rewrites += not is_newest
        self.closes[hour] = close
        return self.chunk(hour, previous if is_newest else None)

    def chunk(self, hour: int, previous: int | None) -> Chunk:
        close = self.closes[hour]
        candle = Candle(
            symbol="A-B", timeframe=Timeframe.H1, open_time=at(hour),
            open=close, high=close, low=close, close=close, volume=float(hour),
        )  # fmt: skip
        return Chunk(
            dispatch_id=1, candle=candle, priority=Priority.LOW, jobs=(JobKey(1, 1),), correlation_id="c",
            created_at=START, deadline=START, expires_at=START, catalogue_version=1, rewrites=self.rewrites,
            previous_open_time=None if previous is None else at(previous),
        )  # fmt: skip

    def expected(self, hour: int) -> list[tuple[int, float]]:
        hours = [h for h in sorted(self.closes) if h <= hour][-LENGTH:]
        return [(to_ms(at(h)), self.closes[h]) for h in hours]


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


def seen(bars: Bars) -> list[tuple[int, float]]:
    assert len(bars.open) == len(bars.volume) == len(bars)
    return list(zip(bars.open_time.tolist(), bars.close.tolist(), strict=True))


#: Candles in the order of recording (mostly forward, sometimes late or corrected), and which slots see them.
steps = st.lists(st.tuples(st.integers(-6, 9), st.floats(1, 9), st.sets(st.integers(0, 1))), max_size=60)


@given(steps)
def test_a_window_is_what_postgres_holds_whatever_the_slot_saw_before(recorded):
    history = History()
    slots = [WindowCache(history.load, length=LENGTH, most_series=2) for _ in range(2)]
    newest = 0
    for step, close, seers in recorded:
        hour = max(0, newest + step)
        newest = max(newest, hour)
        chunk = history.record(hour, close)
        for slot in seers:
            assert seen(slots[slot].window(chunk)) == history.expected(hour)


def test_candle_after_candle_needs_no_look_into_postgres():
    history = History()
    cache = WindowCache(history.load, length=LENGTH, most_series=2)
    for hour in range(50):
        assert seen(cache.window(history.record(hour, float(hour + 1)))) == history.expected(hour)
    assert history.loads == 1


def test_a_silent_hour_is_no_gap_but_a_missed_candle_is():
    history = History()
    cache = WindowCache(history.load, length=LENGTH, most_series=2)
    cache.window(history.record(0, 1.0))
    cache.window(history.record(7, 2.0))
    assert history.loads == 1
    history.record(8, 3.0)
    assert seen(cache.window(history.record(9, 4.0))) == history.expected(9)
    assert history.loads == 2


def test_a_window_handed_out_never_changes():
    history = History()
    cache = WindowCache(history.load, length=LENGTH, most_series=2)
    kept = [(hour, cache.window(history.record(hour, float(hour + 1)))) for hour in range(40)]
    for hour, bars in kept:
        assert seen(bars) == [(to_ms(at(h)), float(h + 1)) for h in range(max(0, hour - LENGTH + 1), hour + 1)]
        assert not bars.close.flags.writeable


def test_an_old_candle_is_looked_up_without_disturbing_the_newest():
    history = History()
    cache = WindowCache(history.load, length=LENGTH, most_series=2)
    old = [history.record(hour, float(hour + 1)) for hour in range(30)]
    cache.window(old[29])
    assert seen(cache.window(old[3])) == history.expected(3)
    loads = history.loads
    assert seen(cache.window(history.record(30, 9.0))) == history.expected(30)
    assert history.loads == loads


def test_the_least_recently_used_series_is_dropped():
    history = History()
    cache = WindowCache(history.load, length=LENGTH, most_series=1)
    chunk = history.record(0, 1.0)
    other = chunk.model_copy(update={"candle": chunk.candle.model_copy(update={"symbol": "C-D"})})
    for asked in (chunk, other, chunk):
        cache.window(asked)
    assert history.loads == 3


def test_a_candle_that_postgres_does_not_hold_is_an_error():
    history = History()
    chunk = history.record(0, 1.0)
    history.closes.clear()
    with pytest.raises(LookupError, match="not in Postgres"):
        WindowCache(history.load, length=LENGTH, most_series=1).window(chunk)


def test_memory_of_a_window_is_bounded():
    history = History()
    cache = WindowCache(history.load, length=LENGTH, most_series=1)
    for hour in range(1000):
        bars = cache.window(history.record(hour, 1.0))
    base = bars.close.base
    while isinstance(base, np.ndarray) and isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.ndarray)
    assert base.size <= 5 * 2 * LENGTH
