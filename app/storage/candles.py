"""Candles and series: what the producer records, and the windows that workers load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.domain.candles import Candle

_LOCK_SERIES = text("""
    SELECT s.symbol, s.timeframe, s.last_open_time, s.rewrites
    FROM series s
    JOIN unnest(CAST(:symbols AS text[]), CAST(:timeframes AS text[])) AS wanted(symbol, timeframe)
      USING (symbol, timeframe)
    ORDER BY s.symbol, s.timeframe
    FOR UPDATE OF s
""")

_BEGIN_SERIES = text("""
    INSERT INTO series (symbol, timeframe)
    SELECT * FROM unnest(CAST(:symbols AS text[]), CAST(:timeframes AS text[])) AS fresh ORDER BY 1, 2
    ON CONFLICT (symbol, timeframe) DO NOTHING
""")

_UPSERT_CANDLES = text("""
    INSERT INTO candles AS known (symbol, timeframe, open_time, open, high, low, close, volume, source)
    SELECT symbol, timeframe, open_time, open, high, low, close, volume, :source
    FROM unnest(CAST(:symbols AS text[]), CAST(:timeframes AS text[]), CAST(:open_times AS timestamptz[]),
                CAST(:opens AS float8[]), CAST(:highs AS float8[]), CAST(:lows AS float8[]),
                CAST(:closes AS float8[]), CAST(:volumes AS float8[]))
         AS fresh(symbol, timeframe, open_time, open, high, low, close, volume)
    ORDER BY symbol, timeframe, open_time
    ON CONFLICT (symbol, timeframe, open_time) DO UPDATE
      SET open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
          volume = excluded.volume, source = excluded.source, received_at = clock_timestamp(),
          revision = known.revision + 1
      WHERE (known.open, known.high, known.low, known.close, known.volume)
            IS DISTINCT FROM (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)
    RETURNING symbol, timeframe, open_time, revision
""")

_SAVE_SERIES = text("""
    INSERT INTO series AS known (symbol, timeframe, last_open_time, rewrites)
    SELECT symbol, timeframe, last_open_time, rewrites
    FROM unnest(CAST(:symbols AS text[]), CAST(:timeframes AS text[]), CAST(:last_open_times AS timestamptz[]),
                CAST(:rewrites AS bigint[]))
         AS fresh(symbol, timeframe, last_open_time, rewrites)
    ORDER BY symbol, timeframe
    ON CONFLICT (symbol, timeframe) DO UPDATE
      SET last_open_time = greatest(known.last_open_time, excluded.last_open_time),
          rewrites = greatest(known.rewrites, excluded.rewrites)
""")

_LOAD_WINDOW = text("""
    SELECT CAST(extract(epoch FROM open_time) * 1000 AS bigint), open, high, low, close, volume
    FROM candles
    WHERE symbol = :symbol AND timeframe = :timeframe AND open_time <= :until
      AND open_time > coalesce(CAST(:after AS timestamptz), '-infinity')
    ORDER BY open_time DESC
    LIMIT :count
""")

SeriesKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SeriesState:
    """What is known of a series: its newest candle, and how often its past was changed."""

    last_open_time: datetime | None = None
    rewrites: int = 0

    def after(self, opened: datetime, revision: int) -> SeriesState:
        """Return the state once a candle was recorded: anything but a new newest candle rewrites the past."""
        if revision == 0 and (self.last_open_time is None or opened > self.last_open_time):
            return replace(self, last_open_time=opened)
        return replace(self, rewrites=self.rewrites + 1)


@dataclass(frozen=True, slots=True)
class RecordedCandle:
    """A candle that was new or a correction, and where it stands in its series."""

    candle: Candle
    previous_open_time: datetime | None
    """The candle before it in the series; None for the first, and for one that rewrote the past."""
    rewrites: int


def record_candles(connection: Connection, candles: Sequence[Candle], source: str) -> list[RecordedCandle]:
    """Write candles and return those that were new or corrections, in the given order.

    A candle that is known with the same values is left alone and not returned; one with other values
    replaces the known one under the next revision. Runs in the caller's transaction and holds the rows
    of the series until it ends, so that two producers of one series take turns.

    Args:
        connection: with an open transaction.
        candles: no (symbol, timeframe, open_time) twice; oldest first within a series.
        source: where they came from, for example ``replay:data``.
    """
    if not candles:
        return []
    states = _lock_series(connection, {(c.symbol, c.timeframe.value) for c in candles})
    revisions = _upsert(connection, candles, source)
    recorded = []
    for candle in candles:
        key = (candle.symbol, candle.timeframe.value)
        revision = revisions.get((*key, candle.open_time))
        if revision is not None:
            recorded.append(_place(candle, revision, states, key))
    _save_series(connection, {(r.candle.symbol, r.candle.timeframe.value) for r in recorded}, states)
    return recorded


def load_window(
    connection: Connection, symbol: str, timeframe: str, until: datetime, count: int, after: datetime | None = None
) -> list[tuple[Any, ...]]:
    """Load the newest `count` candles of a series that opened up to `until` (and later than `after`).

    Returns:
        Rows (open time in epoch ms, open, high, low, close, volume), oldest first.
    """
    rows = connection.execute(
        _LOAD_WINDOW, {"symbol": symbol, "timeframe": timeframe, "until": until, "after": after, "count": count}
    )
    return [tuple(row) for row in rows][::-1]


def _lock_series(connection: Connection, keys: set[SeriesKey]) -> dict[SeriesKey, SeriesState]:
    states = _read_series(connection, keys)
    if missing := keys - states.keys():
        # a row to lock, made before the first candle: the first candles of two producers take turns as well
        connection.execute(_BEGIN_SERIES, _arrays(missing))
        states |= _read_series(connection, missing)
    return states


def _read_series(connection: Connection, keys: set[SeriesKey]) -> dict[SeriesKey, SeriesState]:
    rows = connection.execute(_LOCK_SERIES, _arrays(keys))
    return {(row.symbol, row.timeframe): SeriesState(row.last_open_time, row.rewrites) for row in rows}


def _arrays(keys: set[SeriesKey]) -> dict[str, list[str]]:
    ordered = sorted(keys)
    return {"symbols": [key[0] for key in ordered], "timeframes": [key[1] for key in ordered]}


def _upsert(connection: Connection, candles: Sequence[Candle], source: str) -> dict[tuple[str, str, datetime], int]:
    rows = connection.execute(
        _UPSERT_CANDLES,
        {
            "source": source,
            "symbols": [c.symbol for c in candles],
            "timeframes": [c.timeframe.value for c in candles],
            "open_times": [c.open_time for c in candles],
            "opens": [c.open for c in candles],
            "highs": [c.high for c in candles],
            "lows": [c.low for c in candles],
            "closes": [c.close for c in candles],
            "volumes": [c.volume for c in candles],
        },
    )
    return {(row.symbol, row.timeframe, row.open_time): row.revision for row in rows}


def _place(candle: Candle, revision: int, states: dict[SeriesKey, SeriesState], key: SeriesKey) -> RecordedCandle:
    before = states[key]
    after = states[key] = before.after(candle.open_time, revision)
    rewrote = after.rewrites > before.rewrites
    placed = candle if revision == candle.revision else candle.model_copy(update={"revision": revision})
    return RecordedCandle(placed, None if rewrote else before.last_open_time, after.rewrites)


def _save_series(connection: Connection, keys: set[SeriesKey], states: dict[SeriesKey, SeriesState]) -> None:
    if not keys:
        return
    ordered = sorted(keys)
    connection.execute(
        _SAVE_SERIES,
        {
            **_arrays(keys),
            "last_open_times": [states[k].last_open_time for k in ordered],
            "rewrites": [states[k].rewrites for k in ordered],
        },
    )
