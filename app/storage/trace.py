"""Everything that the ledger knows of one dispatch, for telling its story."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.sql.elements import ColumnElement

from app.storage.plans import load_plan
from app.storage.schema import candles, decisions, dispatches

Row = dict[str, Any]

#: Each expected job with its outcome, if it has one.
_JOBS = text("""
    SELECT asked.id AS strategy_id, asked.revision AS strategy_revision, coalesce(s.name, asked.id::text) AS strategy,
           s.priority, o.status, o.action, o.strength, o.edge, o.error_class, o.error, o.attempt, o.queued_ms,
           o.processing_ms, o.worker, o.finished_at
    FROM dispatches d
    CROSS JOIN unnest(d.strategy_ids, d.strategy_revisions) AS asked(id, revision)
    LEFT JOIN strategies s ON s.id = asked.id
    LEFT JOIN outcomes o ON o.dispatch_id = d.id AND o.strategy_id = asked.id
    WHERE d.id = :dispatch_id
    ORDER BY asked.id
""")

_ATTEMPTS = text("""
    SELECT a.strategy_id, coalesce(s.name, a.strategy_id::text) AS strategy, a.attempt, a.status, a.error_class,
           a.error, a.processing_ms, a.worker, a.finished_at
    FROM attempts a
    LEFT JOIN strategies s ON s.id = a.strategy_id
    WHERE a.dispatch_id = :dispatch_id
    ORDER BY a.finished_at, a.strategy_id, a.attempt
""")

#: Breakers keep their last change only, so it is told by the dispatch that was under way at that moment.
_BREAKERS = text("""
    SELECT b.strategy_id, coalesce(s.name, b.strategy_id::text) AS strategy, b.state, b.failures, b.trips, b.crashes,
           b.open_until, b.changed_at
    FROM dispatches d
    JOIN breakers b ON b.strategy_id = ANY(d.strategy_ids)
    LEFT JOIN strategies s ON s.id = b.strategy_id
    WHERE d.id = :dispatch_id AND b.changed_at >= d.created_at
      AND b.changed_at <= coalesce(d.completed_at + interval '1 second', 'infinity')
    ORDER BY b.changed_at
""")

#: What the dispatched candle did to positions, whichever job brought them forward.
_POSITIONS = text("""
    SELECT e.*, s.name AS strategy FROM dispatches d
    JOIN position_events e ON e.strategy_id = ANY(d.strategy_ids) AND e.symbol = d.symbol
                          AND e.timeframe = d.timeframe AND e.open_time = d.open_time
    JOIN strategies s ON s.id = e.strategy_id
    WHERE d.id = :dispatch_id AND e.correlation_id = d.correlation_id
    ORDER BY e.id
""")

_ACTIONS = text("""
    SELECT a.*, s.name AS strategy FROM dispatches d
    CROSS JOIN unnest(d.strategy_ids) AS asked(id)
    CROSS JOIN unnest(ARRAY['open', 'close', 'reduce']) AS asked_kind(kind)
    JOIN actions a ON a.idempotency_key = concat_ws(':', asked.id, d.symbol, d.timeframe,
        CAST(extract(epoch FROM d.open_time) * 1000 AS bigint), asked_kind.kind)
    JOIN strategies s ON s.id = a.strategy_id
    WHERE d.id = :dispatch_id AND a.correlation_id = d.correlation_id
    ORDER BY a.id
""")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one dispatch."""

    dispatch: Row
    candle: Row | None
    """As it is now: a later revision replaces what was dispatched."""
    jobs: list[Row]
    attempts: list[Row]
    decision: Row | None
    breakers: list[Row]
    plan: list[Row]
    """The chunks in which the jobs were first sent; empty when that was not stored."""
    positions: list[Row]
    """What happened to positions at the candle."""
    actions: list[Row]
    """Order intents that follow from it."""


def load_facts(
    connection: Connection, *, dispatch_id: int | None = None, correlation_id: str | None = None
) -> Facts | None:
    """Load what is known of a dispatch, by its id or its correlation id; None when there is no such dispatch."""
    if correlation_id is not None:
        dispatch = _one(connection, dispatches.c.correlation_id == correlation_id)
    else:
        dispatch = _one(connection, dispatches.c.id == dispatch_id)
    if dispatch is None:
        return None
    values = {"dispatch_id": dispatch["id"]}
    decided = connection.execute(select(decisions).where(decisions.c.dispatch_id == dispatch["id"]))
    return Facts(
        dispatch=dispatch,
        candle=_load_candle(connection, dispatch),
        jobs=[dict(row) for row in connection.execute(_JOBS, values).mappings()],
        attempts=[dict(row) for row in connection.execute(_ATTEMPTS, values).mappings()],
        decision=next((dict(row) for row in decided.mappings()), None),
        breakers=[dict(row) for row in connection.execute(_BREAKERS, values).mappings()],
        plan=load_plan(connection, dispatch["id"]),
        positions=[dict(row) for row in connection.execute(_POSITIONS, values).mappings()],
        actions=[dict(row) for row in connection.execute(_ACTIONS, values).mappings()],
    )


def _one(connection: Connection, condition: ColumnElement[bool]) -> Row | None:
    row = connection.execute(select(dispatches).where(condition)).mappings().first()
    return None if row is None else dict(row)


def _load_candle(connection: Connection, dispatch: Row) -> Row | None:
    key = (dispatch["symbol"], dispatch["timeframe"], dispatch["open_time"])
    of_series = (candles.c.symbol == key[0]) & (candles.c.timeframe == key[1]) & (candles.c.open_time == key[2])
    row = connection.execute(select(candles).where(of_series)).mappings().first()
    return None if row is None else dict(row)
