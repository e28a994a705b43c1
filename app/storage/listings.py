"""What operators look at: dispatches, outcomes, decisions and the figures of the whole, read only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Select, func, select, text
from sqlalchemy.sql.elements import ColumnElement

from app.storage.schema import attempts, decisions, dispatches, outcomes, strategies

Row = dict[str, Any]


def list_dispatches(
    connection: Connection,
    *,
    limit: int,
    symbol: str | None = None,
    timeframe: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    correlation: str | None = None,
) -> list[Row]:
    """Load the newest dispatches, newest first."""
    query = select(dispatches).where(*_of_series(symbol, timeframe, since)).order_by(dispatches.c.id.desc())
    wanted = ((dispatches.c.state, state), (dispatches.c.correlation_id, correlation))
    return _rows(connection, _only(query, *wanted).limit(limit))


def list_outcomes(
    connection: Connection,
    *,
    limit: int,
    dispatch: int | None = None,
    strategy: str | None = None,
    status: str | None = None,
    symbol: str | None = None,
    timeframe: str | None = None,
    since: datetime | None = None,
    correlation: str | None = None,
) -> list[Row]:
    """Load the newest outcomes, newest dispatch first, with their strategy's name and candle."""
    query = (
        select(
            strategies.c.name.label("strategy"),
            dispatches.c.symbol,
            dispatches.c.timeframe,
            dispatches.c.open_time,
            outcomes,
            dispatches.c.correlation_id,
        )
        .join_from(outcomes, dispatches, dispatches.c.id == outcomes.c.dispatch_id)
        .join(strategies, strategies.c.id == outcomes.c.strategy_id)
        .where(*_of_series(symbol, timeframe, since))
        .order_by(outcomes.c.dispatch_id.desc(), outcomes.c.strategy_id)
    )
    wanted = ((outcomes.c.dispatch_id, dispatch), (outcomes.c.status, status))
    return _rows(connection, _only(query, *wanted, *_of_job(strategy, correlation)).limit(limit))


def list_attempts(
    connection: Connection,
    *,
    limit: int,
    dispatch: int | None = None,
    strategy: str | None = None,
    status: str | None = None,
    symbol: str | None = None,
    timeframe: str | None = None,
    since: datetime | None = None,
    correlation: str | None = None,
) -> list[Row]:
    """Load the newest attempts that were followed by another, newest dispatch first."""
    of_candle = (dispatches.c.symbol, dispatches.c.timeframe, dispatches.c.open_time)
    query = (
        select(strategies.c.name.label("strategy"), *of_candle, attempts, dispatches.c.correlation_id)
        .join_from(attempts, dispatches, dispatches.c.id == attempts.c.dispatch_id)
        .join(strategies, strategies.c.id == attempts.c.strategy_id)
        .where(*_of_series(symbol, timeframe, since))
        .order_by(attempts.c.dispatch_id.desc(), attempts.c.strategy_id, attempts.c.attempt)
    )
    wanted = ((attempts.c.dispatch_id, dispatch), (attempts.c.status, status))
    return _rows(connection, _only(query, *wanted, *_of_job(strategy, correlation)).limit(limit))


def list_names(connection: Connection, status: str) -> list[str]:
    """Return the names of the strategies of one status."""
    query = select(strategies.c.name).where(strategies.c.status == status).order_by(strategies.c.name)
    return list(connection.execute(query).scalars())


def list_decisions(
    connection: Connection,
    *,
    limit: int,
    symbol: str | None = None,
    timeframe: str | None = None,
    action: int | None = None,
    since: datetime | None = None,
) -> list[Row]:
    """Load the newest decisions, newest first, with their candle."""
    query = (
        select(dispatches.c.symbol, dispatches.c.timeframe, dispatches.c.open_time, dispatches.c.revision, decisions)
        .join_from(decisions, dispatches, dispatches.c.id == decisions.c.dispatch_id)
        .where(*_of_series(symbol, timeframe, since))
        .order_by(decisions.c.dispatch_id.desc())
    )
    if action is not None:
        query = query.where(decisions.c.action == action)
    return _rows(connection, query.limit(limit))


def count_open(connection: Connection) -> tuple[int, int]:
    """Return how many dispatches are open, and how many of their outcomes are still missing."""
    missing = func.coalesce(func.sum(dispatches.c.expected - dispatches.c.landed), 0)
    row = connection.execute(select(func.count(), missing).where(dispatches.c.state == "open")).one()
    return int(row[0]), int(row[1])


def count_all(connection: Connection) -> Row:
    """Return how many candles, dispatches and decisions there are."""
    query = text("""
        SELECT (SELECT count(*) FROM candles) AS candles, (SELECT count(*) FROM dispatches) AS dispatches,
               (SELECT count(*) FROM decisions) AS decisions
    """)
    return dict(connection.execute(query).mappings().one())


def count_outcomes(connection: Connection) -> dict[str, int]:
    """Return the number of outcomes by status."""
    query = select(outcomes.c.status, func.count()).group_by(outcomes.c.status).order_by(outcomes.c.status)
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def count_decisions(connection: Connection) -> dict[str, int]:
    """Return the number of decisions by action: ``long``, ``flat``, ``short``, ``none`` (no quorum)."""
    words: Mapping[int | None, str] = {1: "long", 0: "flat", -1: "short", None: "none"}
    query = select(decisions.c.action, func.count()).group_by(decisions.c.action)
    counted = {words[action]: count for action, count in connection.execute(query)}
    return {word: counted.get(word, 0) for word in words.values()}


def load_latency(connection: Connection) -> dict[str, float | None]:
    """Return p50, p95 and p99 of the time from dispatch to landed outcome, milliseconds."""
    query = text("""
        SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (
                   ORDER BY extract(epoch FROM o.finished_at - d.created_at) * 1000)
        FROM outcomes o JOIN dispatches d ON d.id = o.dispatch_id
    """)
    return _percentiles(connection.execute(query).scalar_one())


def load_processing(connection: Connection) -> dict[str, float | None]:
    """Return mean, p50, p95 and p99 of the processing time of a job, milliseconds."""
    query = text("""
        SELECT avg(processing_ms),
               percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY processing_ms)
        FROM outcomes
    """)
    mean, percentiles = connection.execute(query).one()
    return {"mean": None if mean is None else float(mean), **_percentiles(percentiles)}


def count_signals(connection: Connection) -> list[Row]:
    """Return per strategy how often it said long, flat and short, how often it failed, and its mean time."""
    query = text("""
        SELECT s.name AS strategy, s.priority,
               count(*) FILTER (WHERE o.action = 1) AS long, count(*) FILTER (WHERE o.action = 0) AS flat,
               count(*) FILTER (WHERE o.action = -1) AS short,
               count(*) FILTER (WHERE o.status <> 'succeeded') AS failed,
               avg(o.processing_ms) AS mean_ms
        FROM outcomes o JOIN strategies s ON s.id = o.strategy_id
        GROUP BY s.id ORDER BY s.id
    """)
    return [dict(row) for row in connection.execute(query).mappings()]


def _of_series(symbol: str | None, timeframe: str | None, since: datetime | None) -> list[ColumnElement[bool]]:
    conditions = []
    if symbol is not None:
        conditions.append(dispatches.c.symbol == symbol)
    if timeframe is not None:
        conditions.append(dispatches.c.timeframe == timeframe)
    if since is not None:
        conditions.append(dispatches.c.open_time >= since)
    return conditions


def _of_job(strategy: str | None, correlation: str | None) -> tuple[tuple[Column[Any], object], ...]:
    return (strategies.c.name, strategy), (dispatches.c.correlation_id, correlation)


def _only(query: Select[Any], *wanted: tuple[Column[Any], object]) -> Select[Any]:
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    return query


def _rows(connection: Connection, query: Select[Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _percentiles(values: list[float] | None) -> dict[str, float | None]:
    names = ("p50", "p95", "p99")
    return dict.fromkeys(names) if values is None else dict(zip(names, values, strict=True))
