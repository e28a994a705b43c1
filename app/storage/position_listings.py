"""What operators look at of positions: what is held, what happened to it, what executors were asked to do."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Table, func, literal, select, true

from app.domain.positions import unrealised
from app.storage.schema import actions, candles, position_events, positions, strategies

Row = dict[str, Any]


def list_positions(
    connection: Connection,
    *,
    limit: int,
    strategy: str | None = None,
    symbol: str | None = None,
    timeframe: str | None = None,
    only_open: bool = False,
) -> list[Row]:
    """Load positions by strategy and series, with the newest close and what is not realised yet at it."""
    newest = (
        select(candles.c.close)
        .where(candles.c.symbol == positions.c.symbol, candles.c.timeframe == positions.c.timeframe)
        .order_by(candles.c.open_time.desc())
        .limit(1)
        .lateral("newest")
    )
    query = (
        select(strategies.c.name.label("strategy"), strategies.c.status, positions, newest.c.close.label("price"))
        .join_from(positions, strategies, strategies.c.id == positions.c.strategy_id)
        .outerjoin(newest, true())
        .order_by(strategies.c.name, positions.c.symbol, positions.c.timeframe)
        .limit(limit)
    )
    query = _only(query, positions, strategy, symbol, timeframe)
    if only_open:
        query = query.where(positions.c.side != 0)
    return [_with_unrealised(dict(row)) for row in connection.execute(query).mappings()]


def list_events(
    connection: Connection,
    *,
    limit: int,
    strategy: str | None = None,
    symbol: str | None = None,
    timeframe: str | None = None,
    kind: str | None = None,
    since: datetime | None = None,
    correlation: str | None = None,
) -> list[Row]:
    """Load the newest position events, newest first, with their strategy's name."""
    query = (
        select(strategies.c.name.label("strategy"), position_events)
        .join_from(position_events, strategies, strategies.c.id == position_events.c.strategy_id)
        .order_by(position_events.c.id.desc())
        .limit(limit)
    )
    query = _only(query, position_events, strategy, symbol, timeframe)
    if kind is not None:
        query = query.where(position_events.c.kind == kind)
    if since is not None:
        query = query.where(position_events.c.open_time >= since)
    if correlation is not None:
        query = query.where(position_events.c.correlation_id == correlation)
    return [dict(row) for row in connection.execute(query).mappings()]


def list_actions(
    connection: Connection,
    *,
    limit: int,
    strategy: str | None = None,
    symbol: str | None = None,
    states: Collection[str] = (),
    after: int | None = None,
) -> list[Row]:
    """Load order intents with their strategy's name: the newest, newest first, or those after an id, oldest first."""
    query = (
        select(strategies.c.name.label("strategy"), actions)
        .join_from(actions, strategies, strategies.c.id == actions.c.strategy_id)
        .limit(limit)
    )
    query = _only(query, actions, strategy, symbol, None)
    if states:
        query = query.where(actions.c.state.in_(states))
    if after is None:
        query = query.order_by(actions.c.id.desc())
    else:
        query = query.where(actions.c.id > after).order_by(actions.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def load_newest_action(connection: Connection) -> int:
    """Return the id of the newest order intent, 0 when there is none."""
    newest = func.coalesce(func.max(actions.c.id), literal(0))
    return int(connection.execute(select(newest)).scalar_one())


def count_positions(connection: Connection) -> Row:
    """Return how many positions are open, how many were closed, and what was realised and paid in all."""
    query = select(
        func.count().filter(positions.c.side != 0).label("open"),
        func.coalesce(func.sum(positions.c.trades), 0).label("closed"),
        func.coalesce(func.sum(positions.c.profit), 0.0).label("profit"),
        func.coalesce(func.sum(positions.c.fees), 0.0).label("fees"),
    )
    return dict(connection.execute(query).mappings().one())


def _only(
    query: Select[Any], table: Table, strategy: str | None, symbol: str | None, timeframe: str | None
) -> Select[Any]:
    wanted = ((strategies.c.name, strategy), (table.c.symbol, symbol), (table.c.timeframe, timeframe))
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    return query


def _with_unrealised(row: Row) -> Row:
    held = (row["side"], row["quantity"], row["entry_price"], row["entry_fee"])
    is_open = row["side"] != 0 and row["price"] is not None
    return {**row, "unrealised": unrealised(*held, row["price"]) if is_open else 0.0}
