"""What a replay needs: a stored dispatch with its outcomes and revisions, its window, and what was corrected since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text

from app.domain.jobs import JobKey
from app.errors import UnknownDispatchError, UnknownStrategyError, did_you_mean
from app.storage.schema import dispatches
from app.storage.strategies import Revision, load_revisions

#: Of the window that ends with the dispatched candle, those that came or changed after the dispatch was written.
_CHANGED = text("""
    SELECT recent.open_time, recent.revision, recent.received_at
    FROM (SELECT open_time, revision, received_at FROM candles
          WHERE symbol = :symbol AND timeframe = :timeframe AND open_time <= :until
          ORDER BY open_time DESC LIMIT :count) AS recent
    WHERE recent.received_at > :since
    ORDER BY recent.open_time
""")

_OUTCOMES = text("""
    SELECT o.strategy_id, o.strategy_revision, o.status, o.action, o.strength, o.edge, o.detail, o.error_class, o.error
    FROM outcomes o WHERE o.dispatch_id = :dispatch_id ORDER BY o.strategy_id
""")


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job that has an outcome."""

    key: JobKey
    revision: Revision
    status: str
    values: dict[str, Any]
    """Action, strength, edge, stop, target, extras; empty without success."""
    error: str | None


@dataclass(frozen=True, slots=True)
class StoredDispatch:
    """A dispatch as it can be evaluated again."""

    id: int
    symbol: str
    timeframe: str
    open_time: datetime
    jobs: Sequence[StoredJob]
    changed: Sequence[dict[str, Any]]
    """Candles of its window that came or were corrected since: open_time, revision, received_at."""


def load_dispatch(connection: Connection, dispatch_id: int, strategy: str | None, count: int) -> StoredDispatch:
    """Load a dispatch with the outcomes that it has.

    Args:
        connection: to read with.
        dispatch_id: of it.
        strategy: name of the only one wanted; None for all.
        count: candles of a window.

    Raises:
        UnknownDispatchError: there is no such dispatch.
        UnknownStrategyError: it has no outcome of that strategy.
    """
    row = connection.execute(select(dispatches).where(dispatches.c.id == dispatch_id)).one_or_none()
    if row is None:
        raise UnknownDispatchError(f"no dispatch {dispatch_id}: 'candlefleet dispatches' lists the newest")
    place = {"symbol": row.symbol, "timeframe": row.timeframe}
    asked = {**place, "until": row.open_time, "count": count, "since": row.created_at}
    changed = [dict(each._mapping) for each in connection.execute(_CHANGED, asked)]
    jobs = _only(_load_jobs(connection, dispatch_id), dispatch_id, strategy)
    return StoredDispatch(row.id, row.symbol, row.timeframe, row.open_time, jobs, changed)


def _load_jobs(connection: Connection, dispatch_id: int) -> list[StoredJob]:
    rows = list(connection.execute(_OUTCOMES, {"dispatch_id": dispatch_id}))
    keys = [JobKey(row.strategy_id, row.strategy_revision) for row in rows]
    revisions = load_revisions(connection, keys)
    return [_job(key, row, revisions[key]) for key, row in zip(keys, rows, strict=True) if key in revisions]


def _job(key: JobKey, row: Any, revision: Revision) -> StoredJob:
    detail = row.detail or {}
    values = {"action": row.action, "strength": row.strength, "edge": row.edge}
    values |= {"stop": detail.get("stop"), "target": detail.get("target"), "extras": detail.get("extras") or {}}
    error = None if row.error_class is None else f"{row.error_class}: {row.error}"
    return StoredJob(key, revision, row.status, values if row.action is not None else {}, error)


def _only(jobs: list[StoredJob], dispatch_id: int, strategy: str | None) -> list[StoredJob]:
    found = [job for job in jobs if strategy in (None, job.revision.name)]
    if strategy is not None and not found:
        names = did_you_mean(strategy, [job.revision.name for job in jobs])
        raise UnknownStrategyError(f"dispatch {dispatch_id} has no outcome of strategy {strategy!r}: {names}")
    return found
