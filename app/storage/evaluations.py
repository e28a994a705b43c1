"""Every unit of an evaluate run as one row: what its strategy said, what became of it. For reports and comparisons.

Unlike the listings of `app.storage.listings_runs` these rows are complete: a unit that nobody has answered yet, that
was cancelled, or whose answer was deleted with the details of its run, has one as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app.domain.candles import Timeframe

Row = dict[str, Any]

#: Each unit with the newest slice it is in: one that was tried again is in two.
_CELLS = """
    total AS (SELECT count(*)::int AS variants FROM variants WHERE run_id = :run),
    cell AS (
        SELECT DISTINCT ON (number) * FROM (
            SELECT (s.first_market + m.place - 1) * total.variants + v.variant AS number, s.number AS slice,
                   s.state, m.symbol, m.place, v.variant
            FROM total, slices s, unnest(s.symbols) WITH ORDINALITY AS m(symbol, place),
                 unnest(s.variants) AS v(variant)
            WHERE s.run_id = :run) AS every
        ORDER BY number, slice DESC),
    answer AS MATERIALIZED (  -- else a slice is unfolded once for each of its units
        SELECT e.slice, e.variant, a.place, a.status, to_timestamp(nullif(a.opened_ms, 0) / 1000.0) AS open_time,
               a.action, a.strength, nullif(a.edge, 'NaN') AS edge_percent, nullif(a.price, 'NaN') AS price,
               nullif(a.stop, 'NaN') AS stop, nullif(a.target, 'NaN') AS target
        FROM evaluations e,
             unnest(e.status, e.opened_ms, e.action, e.strength, e.edge, e.price, e.stop, e.target)
               WITH ORDINALITY AS a(status, opened_ms, action, strength, edge, price, stop, target, place)
        WHERE e.run_id = :run)
"""

_UNITS = text(f"""
    WITH {_CELLS}
    SELECT c.number, v.strategy, v.revision, v.params, c.symbol,
           CASE WHEN c.state <> 'done' THEN c.state WHEN f.unit IS NOT NULL THEN 'failed'
                WHEN a.status IS NULL THEN 'deleted' WHEN a.status = 0 THEN 'succeeded' WHEN a.status = 2 THEN 'stale'
                ELSE 'short_history' END AS state,
           a.open_time, CASE WHEN a.status = 0 THEN a.action END AS action,
           CASE WHEN a.status = 0 THEN a.strength END AS strength, a.edge_percent, a.price, a.stop, a.target,
           p.rank, p.stop AS position_stop, p.target AS position_target, p.size_percent, p.risk_percent,
           r.reason, r.detail, f.error_class, f.error
    FROM cell c
    JOIN variants v ON v.run_id = :run AND v.number = c.variant
    LEFT JOIN answer a ON a.slice = c.slice AND a.variant = c.variant AND a.place = c.place
    LEFT JOIN evaluation_errors f ON f.run_id = :run AND f.unit = c.number
    LEFT JOIN selected p ON p.run_id = :run AND p.unit = c.number
    LEFT JOIN rejected r ON r.run_id = :run AND r.unit = c.number
    ORDER BY p.rank NULLS LAST, abs(a.action) DESC NULLS LAST, a.edge_percent DESC NULLS LAST, c.number
""")  # noqa: S608 - a text of our own

# a corrected candle was dispatched again: what was said of the newest revision counts
_LIVE = text(f"""
    WITH {_CELLS}
    SELECT DISTINCT ON (c.number) v.strategy, c.symbol, a.open_time, o.action AS live_action, a.action AS run_action,
           o.strength AS live_strength, a.strength AS run_strength,
           o.edge AS live_edge_percent, a.edge_percent AS run_edge_percent,
           CAST(o.detail->>'stop' AS double precision) AS live_stop, a.stop AS run_stop,
           CAST(o.detail->>'target' AS double precision) AS live_target, a.target AS run_target
    FROM cell c
    JOIN answer a ON a.slice = c.slice AND a.variant = c.variant AND a.place = c.place AND a.status = 0
    JOIN variants v ON v.run_id = :run AND v.number = c.variant AND v.revision IS NOT NULL
    JOIN dispatches d ON d.symbol = c.symbol AND d.timeframe = :timeframe AND d.open_time = a.open_time
    JOIN outcomes o ON o.dispatch_id = d.id AND o.strategy_id = v.strategy_id
    WHERE o.strategy_revision = v.revision AND o.status = 'succeeded'
    ORDER BY c.number, d.revision DESC
""")  # noqa: S608 - the same

_COMPARABLE = text(f"""
    WITH {_CELLS}
    SELECT count(*) FROM cell c
    JOIN answer a ON a.slice = c.slice AND a.variant = c.variant AND a.place = c.place AND a.status = 0
    JOIN variants v ON v.run_id = :run AND v.number = c.variant AND v.revision IS NOT NULL
""")  # noqa: S608 - the same


class SaidTwice(NamedTuple):
    """What live and a run said of one candle; edge in percent of price, prices in quote currency, None for none."""

    strategy: str
    symbol: str
    open_time: datetime
    live_action: int
    run_action: int
    live_strength: float
    run_strength: float
    live_edge_percent: float | None
    run_edge_percent: float | None
    live_stop: float | None
    run_stop: float | None
    live_target: float | None
    run_target: float | None


def load_evaluated(connection: Connection, run: int) -> list[Row]:
    """Load every unit of an evaluate run: what was selected by rank, then the best edge first."""
    return [dict(row) for row in connection.execute(_UNITS, {"run": run}).mappings()]


def count_comparable(connection: Connection, run: int) -> int:
    """Count the units of an evaluate run that were answered by a revision of the catalogue."""
    return int(connection.execute(_COMPARABLE, {"run": run}).scalar_one())


def load_said_twice(connection: Connection, run: int, timeframe: Timeframe) -> Iterator[SaidTwice]:
    """Load the answers of an evaluate run of which live recorded an outcome: of the same strategy, revision, candle."""
    rows = connection.execute(_LIVE, {"run": run, "timeframe": timeframe.value})
    return (SaidTwice(*row) for row in rows)
