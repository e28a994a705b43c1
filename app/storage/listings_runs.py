"""What runs found, unfolded from arrays: the answers of an evaluate run, the trades of a backtest's unit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.errors import UnknownRunError

#: Every unit of a run that was answered. One that was tried again is in two slices, of which the newer one counts.
_UNITS = """
    unit AS (
        SELECT DISTINCT ON (number) * FROM (
            SELECT (s.first_market + a.place - 1) * (SELECT count(*) FROM variants WHERE run_id = :run) + e.variant
                     AS number,
                   s.symbols[a.place] AS symbol, e.variant, e.slice, a.*
            FROM evaluations e JOIN slices s ON s.run_id = e.run_id AND s.number = e.slice,
                 unnest(e.status, e.opened_ms, e.action, e.strength, e.edge, e.price, e.stop, e.target)
                   WITH ORDINALITY AS a(status, opened_ms, action, strength, edge, price, stop, target, place)
            WHERE e.run_id = :run) AS every
        ORDER BY number, slice DESC)
"""
_EVALUATIONS = text(f"""
    WITH {_UNITS}
    SELECT u.number, v.strategy, v.params, u.symbol,
           CASE u.status WHEN 0 THEN 'succeeded' WHEN 1 THEN 'failed' WHEN 2 THEN 'stale' ELSE 'short_history' END
             AS state,
           to_timestamp(nullif(u.opened_ms, 0) / 1000.0) AS open_time,
           CASE WHEN u.status = 0 THEN u.action END AS action,
           CASE WHEN u.status = 0 THEN u.strength END AS strength, nullif(u.edge, 'NaN') AS edge_percent,
           nullif(u.price, 'NaN') AS price, f.attempts, f.error_class, f.error
    FROM unit u JOIN variants v ON v.run_id = :run AND v.number = u.variant
    LEFT JOIN evaluation_errors f ON f.run_id = :run AND f.unit = u.number
    WHERE CAST(:state AS text) IS NULL OR u.status = CASE :state WHEN 'succeeded' THEN 0 WHEN 'failed' THEN 1 END
    ORDER BY abs(u.action) DESC, nullif(u.edge, 'NaN') DESC NULLS LAST, u.number LIMIT :limit OFFSET :offset
""")  # noqa: S608 - a text of our own
_SELECTED = text(f"""
    WITH {_UNITS}
    SELECT p.rank, v.strategy, v.params, v.category, u.symbol, u.action, u.strength, u.edge AS edge_percent, u.price,
           p.stop, p.target, p.size_percent, p.risk_percent
    FROM selected p JOIN unit u ON u.number = p.unit
    JOIN variants v ON v.run_id = p.run_id AND v.number = u.variant
    WHERE p.run_id = :run ORDER BY p.rank
""")  # noqa: S608 - the same
_REJECTED = text(f"""
    WITH {_UNITS}
    SELECT v.strategy, v.params, v.category, u.symbol, CASE WHEN u.status = 0 THEN u.action END AS action,
           nullif(u.edge, 'NaN') AS edge_percent, r.reason,
           coalesce(r.detail, f.error_class || ': ' || f.error) AS detail
    FROM rejected r JOIN unit u ON u.number = r.unit
    JOIN variants v ON v.run_id = r.run_id AND v.number = u.variant
    LEFT JOIN evaluation_errors f ON f.run_id = r.run_id AND f.unit = r.unit
    WHERE r.run_id = :run
    ORDER BY abs(u.action) DESC, nullif(u.edge, 'NaN') DESC NULLS LAST, r.unit LIMIT :limit
""")  # noqa: S608 - the same
_TRADES = text("""
    SELECT number, opened_at, closed_at, side, quantity, entry_price, exit_price, fees, profit, reason
    FROM unit_trades WHERE run_id = :run AND unit = :unit ORDER BY number LIMIT :limit OFFSET :offset
""")
_UNIT = text("SELECT EXISTS (SELECT FROM units WHERE run_id = :run AND number = :unit)")
_WORKERS = text("SELECT DISTINCT worker FROM slices WHERE run_id = :run AND worker IS NOT NULL")
_SPAN = text("SELECT min(started_at) AS first, max(finished_at) AS last FROM slices WHERE run_id = :run")


def list_evaluations(
    connection: Connection, run_id: int, state: str | None, limit: int, offset: int = 0
) -> list[dict[str, Any]]:
    """List what strategies said of markets, the best edge first.

    Args:
        connection: to Postgres.
        run_id: of the run.
        state: only units that are `succeeded` or `failed`; None for all.
        limit: most of them.
        offset: how many to leave out before these.
    """
    return _rows(connection, _EVALUATIONS, {"run": run_id, "state": state, "limit": limit, "offset": offset})


def list_trades(connection: Connection, run_id: int, unit: int, limit: int, offset: int = 0) -> list[dict[str, Any]]:
    """List the closed trades of a backtest's unit, the oldest first; prices and fees in quote currency.

    Args:
        connection: to Postgres.
        run_id: of the run.
        unit: its number.
        limit: most of them.
        offset: how many to leave out before these.

    Raises:
        UnknownRunError: the run has no such unit.
    """
    values = {"run": run_id, "unit": unit, "limit": limit, "offset": offset}
    if not connection.execute(_UNIT, values).scalar_one():
        raise UnknownRunError(
            f"run {run_id} has no unit {unit} with trades: 'candlefleet runs show {run_id}' lists its units"
        )
    return _rows(connection, _TRADES, values)


def load_span(connection: Connection, run_id: int) -> tuple[datetime, datetime]:
    """Return when the first slice of a run was claimed, and when its last one was recorded."""
    row = connection.execute(_SPAN, {"run": run_id}).one()
    return row.first, row.last


def load_workers(connection: Connection, run_id: int) -> set[str]:
    """Return the slots that evaluated markets of a run."""
    return set(connection.execute(_WORKERS, {"run": run_id}).scalars())


def list_selected(connection: Connection, run_id: int) -> list[dict[str, Any]]:
    """List the positions that a run selected, the best edge first."""
    return _rows(connection, _SELECTED, {"run": run_id})


def list_rejected(connection: Connection, run_id: int, limit: int) -> list[dict[str, Any]]:
    """List what a run did not select, the best edge first, and why."""
    return _rows(connection, _REJECTED, {"run": run_id, "limit": limit})


def _rows(connection: Connection, query: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query, values).mappings()]
