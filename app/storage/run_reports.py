"""What the report of a run is built from: its units with their curves, the gaps in its data, what was tried before."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app.domain.candles import Timeframe

Row = dict[str, Any]

_UNITS = text("""
    SELECT u.number, v.strategy, v.revision, v.implementation, v.fingerprint, v.params, u.symbol, u.state,
           u.error_class, u.error, u.metrics
    FROM units u JOIN variants v ON v.run_id = u.run_id AND v.number = u.variant
    WHERE u.run_id = :run ORDER BY u.number
""")
_VARIANTS = text("""
    SELECT strategy, revision, implementation, params, fingerprint FROM variants WHERE run_id = :run ORDER BY number
""")
_START = text("""
    SELECT least((SELECT min(started_at) FROM units WHERE run_id = :run),
                 (SELECT min(started_at) FROM slices WHERE run_id = :run))
""")
#: What was tried on the same series and an overlapping range before.
_EARLIER = text("""
    SELECT u.symbol, r.from_time, r.to_time, v.implementation, v.fingerprint, v.params,
           CAST(u.metrics->>'sharpe_per_candle' AS double precision) AS sharpe
    FROM runs r
    JOIN units u ON u.run_id = r.id
    JOIN variants v ON v.run_id = u.run_id AND v.number = u.variant
    WHERE r.id < :run AND r.kind = 'backtest' AND r.timeframe = :timeframe AND u.state IN ('succeeded', 'failed')
      AND r.from_time < :until AND :since < r.to_time
      AND u.symbol IN (SELECT symbol FROM units WHERE run_id = :run)
""")
_CURVES = text("""
    SELECT unit, closed_ms, equity, drawdown_percent, close FROM unit_equity
    WHERE run_id = :run AND unit = ANY(:units)
""")
_ENDS = text("""
    SELECT symbol, min(open_time) AS first, max(open_time) AS last FROM candles
    WHERE timeframe = :timeframe AND symbol = ANY(:symbols) AND open_time >= :since AND open_time < :until
    GROUP BY symbol
""")
_GAPS = text("""
    SELECT symbol, count(*) AS gaps, extract(epoch FROM max(step)) AS longest_s FROM (
        SELECT symbol, open_time - lag(open_time) OVER (PARTITION BY symbol ORDER BY open_time) AS step FROM candles
        WHERE timeframe = :timeframe AND symbol = ANY(:symbols) AND open_time >= :since AND open_time < :until
    ) steps
    WHERE step > CAST(:length AS interval) GROUP BY symbol
""")


class Ends(NamedTuple):
    """The candles of a series in a run's range."""

    first: datetime
    """Open time."""
    last: datetime
    """Open time."""


class Gaps(NamedTuple):
    """Breaks in a series."""

    number: int
    longest_s: float
    """From the end of the candle before the longest one to the candle after it."""


def load_units(connection: Connection, run: int) -> list[Row]:
    """Load all units of a run with their variant and metrics, by number."""
    return _rows(connection, _UNITS, run=run)


def load_variants(connection: Connection, run: int) -> list[Row]:
    """Load which code and params the variants of a run are, by number."""
    return _rows(connection, _VARIANTS, run=run)


def load_start(connection: Connection, run: int) -> datetime | None:
    """Return when a slot first claimed work of a run that it recorded; None before that."""
    started: datetime | None = connection.execute(_START, {"run": run}).scalar()
    return started


def load_earlier(connection: Connection, run: int, timeframe: Timeframe, since: datetime, until: datetime) -> list[Row]:
    """Load what earlier backtests tried on series of a run, over ranges that overlap its own."""
    return _rows(connection, _EARLIER, run=run, timeframe=timeframe.value, since=since, until=until)


def load_curves(connection: Connection, run: int, units: Collection[int]) -> dict[int, Row]:
    """Load the sampled curves of units."""
    return {row["unit"]: row for row in _rows(connection, _CURVES, run=run, units=list(units))}


def load_ends(
    connection: Connection, timeframe: Timeframe, symbols: Sequence[str], since: datetime, until: datetime
) -> dict[str, Ends]:
    """Load the first and the last candle of series in a range."""
    rows = _rows(connection, _ENDS, timeframe=timeframe.value, symbols=list(symbols), since=since, until=until)
    return {row["symbol"]: Ends(row["first"], row["last"]) for row in rows}


def load_gaps(
    connection: Connection, timeframe: Timeframe, symbols: Sequence[str], since: datetime, until: datetime
) -> dict[str, Gaps]:
    """Count the breaks in series; those without any are absent.

    Args:
        connection: to Postgres.
        timeframe: of the series.
        symbols: the fewer the better: all of their candles are looked at.
        since: open time of the first candle.
        until: open time of the first one beyond.
    """
    length = timeframe.duration
    values = {"timeframe": timeframe.value, "symbols": list(symbols), "since": since, "until": until, "length": length}
    rows = _rows(connection, _GAPS, **values)
    return {row["symbol"]: Gaps(row["gaps"], float(row["longest_s"]) - length.total_seconds()) for row in rows}


def _rows(connection: Connection, query: Any, **values: Any) -> list[Row]:
    return list(_dicts(connection, query, values))


def _dicts(connection: Connection, query: Any, values: Row) -> Iterator[Row]:
    return (dict(row) for row in connection.execute(query, values).mappings())
