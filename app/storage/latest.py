"""The latest candles of many markets: how old they are, and their windows, all with one query."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from psycopg import Connection as DriverConnection
from sqlalchemy import Connection, text

from app.domain.candles import Timeframe
from app.storage.copying import EPOCH_US
from app.strategies.bars import Bars

#: A value per symbol, newest candle first: open time and five numbers of eight bytes each. Postgres needs about 0.3
#: microseconds for a candle of a long window; as arrays of each column, or as records, it takes longer.
_WINDOWS = """
    SELECT found.candles
    FROM unnest(%(symbols)s::text[]) WITH ORDINALITY AS asked(symbol, place)
    CROSS JOIN LATERAL (
        SELECT string_agg(timestamptz_send(open_time) || float8send(open) || float8send(high) || float8send(low)
                          || float8send(close) || float8send(volume), ''::bytea) AS candles
        FROM (SELECT open_time, open, high, low, close, volume FROM candles
              WHERE symbol = asked.symbol AND timeframe = %(timeframe)s AND open_time < %(until)s
              ORDER BY open_time DESC LIMIT %(count)s) AS newest) AS found
    ORDER BY asked.place
"""

# the series knows its newest candle; only an earlier moment must be looked up
_OPENED = text("""
    SELECT s.symbol, CASE WHEN s.last_open_time < :until THEN s.last_open_time
                          ELSE (SELECT max(c.open_time) FROM candles c WHERE c.symbol = s.symbol
                                AND c.timeframe = s.timeframe AND c.open_time < :until) END AS opened
    FROM series s WHERE s.timeframe = :timeframe AND s.symbol = ANY(:symbols) ORDER BY s.symbol
""")

_CELLS = 6
_BYTES = 8 * _CELLS


def load_windows(
    driver: DriverConnection[Any], symbols: Sequence[str], timeframe: Timeframe, until: datetime, count: int
) -> list[Bars | None]:
    """Load the newest candles of series that opened before a moment.

    Args:
        driver: of psycopg.
        symbols: of the series.
        timeframe: of the series.
        until: open time, exclusive.
        count: most candles of each.

    Returns:
        A window for each symbol, oldest candle first; None for one that has no candle.
    """
    values = {"symbols": list(symbols), "timeframe": timeframe.value, "until": until, "count": count}
    with driver.cursor(binary=True) as cursor:
        found = [row[0] or b"" for row in cursor.execute(_WINDOWS, values, prepare=True)]
    # all of them back to front: each window is then oldest first, and the last one comes first
    cells = np.frombuffer(b"".join(found), ">i8").reshape(-1, _CELLS)[::-1]
    opened_ms = (cells[:, 0].astype(np.int64) + EPOCH_US) // 1000
    numbers = [cells[:, place].view(">f8").astype(np.float64) for place in range(1, _CELLS)]
    for column in (opened_ms, *numbers):
        column.setflags(write=False)  # its parts are then read-only views, as bars want them
    windows: list[Bars | None] = []
    end = len(cells)
    for symbol, value in zip(symbols, found, strict=True):
        begin = end - len(value) // _BYTES
        part = slice(begin, end)
        parts = (column[part] for column in numbers)
        windows.append(Bars(symbol, timeframe, opened_ms[part], *parts) if end > begin else None)
        end = begin
    return windows


def load_opened(
    connection: Connection, symbols: Sequence[str], timeframe: Timeframe, until: datetime
) -> dict[str, datetime | None]:
    """Return when the latest candle of each series opened that opened before a moment; None where there is none."""
    values = {"symbols": list(symbols), "timeframe": timeframe.value, "until": until}
    return {row.symbol: row.opened for row in connection.execute(_OPENED, values).all()}
