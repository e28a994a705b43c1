"""Ranges of candles: many at once, straight into arrays, with the history that warms a strategy up."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from psycopg import Connection as DriverConnection
from sqlalchemy import Connection, text

from app.domain.candles import Timeframe
from app.domain.runs import Series
from app.storage.copying import EPOCH_US
from app.strategies.bars import Bars

#: One value of eight bytes each: open time and five numbers. Postgres sends 100,000 of these candles as one value in
#: about 50 ms; as rows, by COPY or not, it takes twice as long and more.
_LOAD = """
    SELECT string_agg(timestamptz_send(open_time) || float8send(open) || float8send(high) || float8send(low)
                      || float8send(close) || float8send(volume), ''::bytea)
    FROM (SELECT * FROM candles
          WHERE symbol = %(symbol)s AND timeframe = %(timeframe)s AND open_time < %(until)s
            AND open_time >= coalesce((SELECT open_time FROM candles
                                       WHERE symbol = %(symbol)s AND timeframe = %(timeframe)s
                                         AND open_time < %(since)s
                                       ORDER BY open_time DESC OFFSET %(before)s - 1 LIMIT 1), '-infinity')
          ORDER BY open_time) AS wanted
"""

_COUNT = text("""
    SELECT s.symbol, count(c.open_time) AS candles, min(c.open_time) AS first, max(c.open_time) AS last
    FROM series s
    LEFT JOIN candles c ON c.symbol = s.symbol AND c.timeframe = s.timeframe
                       AND c.open_time >= :since AND c.open_time < :until
    WHERE s.timeframe = :timeframe AND s.symbol = ANY(:symbols)
    GROUP BY s.symbol ORDER BY s.symbol
""")
_SYMBOLS = text("SELECT symbol FROM series WHERE timeframe = :timeframe ORDER BY symbol")


def load_range(
    driver: DriverConnection[Any], symbol: str, timeframe: Timeframe, *, since: datetime, until: datetime, before: int
) -> Bars:
    """Load the candles of a series from `since` until before `until`, and up to `before` candles before these.

    Args:
        driver: of psycopg.
        symbol: of the series.
        timeframe: of the series.
        since: open time.
        until: open time, exclusive.
        before: candles, at least 1.
    """
    values = {"symbol": symbol, "timeframe": timeframe.value, "since": since, "until": until, "before": before}
    with driver.cursor(binary=True) as cursor:
        row = cursor.execute(_LOAD, values).fetchone()
    cells = np.frombuffer(row[0] or b"" if row else b"", ">i8").reshape(-1, 6)
    opened_ms = (cells[:, 0].astype(np.int64) + EPOCH_US) // 1000
    return Bars(symbol, timeframe, opened_ms, *cells[:, 1:].view(">f8").T)


def list_symbols(connection: Connection, timeframe: Timeframe) -> list[str]:
    """Return the symbols that have a series of a timeframe, in order."""
    return list(connection.execute(_SYMBOLS, {"timeframe": timeframe.value}).scalars().all())


def count_candles(
    connection: Connection, symbols: list[str], timeframe: Timeframe, since: datetime, until: datetime
) -> list[Series]:
    """Count the candles of series that opened from `since` until before `until`, and those missing between them."""
    values = {"symbols": symbols, "timeframe": timeframe.value, "since": since, "until": until}
    return [_series(row, timeframe) for row in connection.execute(_COUNT, values)]


def _series(row: Any, timeframe: Timeframe) -> Series:
    if not row.candles:
        return Series(row.symbol, 0, 0)
    return Series(row.symbol, row.candles, (row.last - row.first) // timeframe.duration + 1 - row.candles)
