"""Dispatches that miss outcomes: what maintenance looks through, and what it needs to send their jobs again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, text

from app.domain.breakers import BreakerState
from app.domain.candles import Candle
from app.domain.jobs import JobKey
from app.storage.schema import breakers, dispatches

#: The few dispatches that are not complete have an index of their own. The candle and the series are those of now:
#: a correction since then replaced the row, and a worker's window is made of current rows anyway.
_UNFINISHED = """
    SELECT d.id, d.symbol, d.timeframe, d.open_time, d.correlation_id, d.created_at, d.deadline, d.expires_at,
           d.published_at, d.sends, c.revision, c.open, c.high, c.low, c.close, c.volume,
           coalesce(s.rewrites, 0) AS rewrites, missing.jobs
    FROM dispatches d
    LEFT JOIN candles c USING (symbol, timeframe, open_time)
    LEFT JOIN series s ON s.symbol = d.symbol AND s.timeframe = d.timeframe
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_array(wanted.id, wanted.revision, tried.attempt,
                                           extract(epoch FROM tried.finished_at)) ORDER BY wanted.id) AS jobs
        FROM unnest(d.strategy_ids, d.strategy_revisions) AS wanted(id, revision)
        LEFT JOIN LATERAL (
            SELECT a.attempt, a.finished_at FROM attempts a
            WHERE a.dispatch_id = d.id AND a.strategy_id = wanted.id ORDER BY a.attempt DESC LIMIT 1
        ) AS tried ON true
        WHERE NOT EXISTS (SELECT FROM outcomes o WHERE o.dispatch_id = d.id AND o.strategy_id = wanted.id)
    ) AS missing
    WHERE d.state <> 'complete' AND missing.jobs IS NOT NULL AND {condition}
    ORDER BY d.id
    LIMIT :limit
"""

#: What a living producer holds is neither lost nor late: it publishes it as room appears.
_OVERDUE = text(
    _UNFINISHED.format(
        condition="""d.expires_at > :now AND coalesce(d.published_at, d.created_at) <= :sent_before
          AND d.id <> ALL(:but)
          AND NOT (d.published_at IS NULL AND EXISTS (
              SELECT FROM producers p WHERE p.seen_at > :seen_after AND d.id <@ p.held_ids))"""
    )
)
_EXPIRED = text(_UNFINISHED.format(condition="d.expires_at <= :expired_before AND d.id > :after"))

#: `now` is that of the round, which may be ahead of the clock where tests set it.
_MARK_SENT = text("""
    UPDATE dispatches SET published_at = greatest(clock_timestamp(), :now), sends = sends + 1 WHERE id = ANY(:ids)
""")

_COUNT_SEND = text("UPDATE dispatches SET sends = sends + 1 WHERE id = :dispatch_id AND state <> 'complete'")

_REVISION = text("""
    SELECT asked.revision FROM dispatches d, unnest(d.strategy_ids, d.strategy_revisions) AS asked(id, revision)
    WHERE d.id = :dispatch_id AND asked.id = :strategy_id
""")

_LANDED_SINCE = text("""
    SELECT d.id FROM dispatches d WHERE d.id = ANY(:ids) AND EXISTS (
        SELECT FROM outcomes o WHERE o.dispatch_id = d.id AND o.finished_at >= d.published_at)
""")


@dataclass(frozen=True, slots=True)
class MissingJob:
    """A job without an outcome."""

    strategy_id: int
    revision: int
    attempt: int | None = None
    """Number of its newest attempt that did not succeed; None when there was none."""
    tried_at: datetime | None = None
    """When that attempt ended."""

    @property
    def key(self) -> JobKey:
        """What names it inside its dispatch."""
        return JobKey(self.strategy_id, self.revision)

    @property
    def next_attempt(self) -> int:
        """Number of the attempt to come."""
        return 0 if self.attempt is None else self.attempt + 1


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A dispatch that misses outcomes."""

    id: int
    candle: Candle | None
    """As it is now; None when it is gone."""
    rewrites: int
    """Of its series, as of now."""
    correlation_id: str
    created_at: datetime
    deadline: datetime
    expires_at: datetime
    published_at: datetime | None
    sends: int
    missing: tuple[MissingJob, ...]
    """Ascending by strategy."""


def load_overdue(
    connection: Connection, now: datetime, overdue: timedelta, silence: timedelta, *, but: Collection[int], limit: int
) -> list[Unfinished]:
    """Load dispatches that miss outcomes, are not out of date and were sent, or else written, long enough ago.

    Args:
        connection: any.
        now: current moment.
        overdue: time since the last sending.
        silence: time without a sign of life after which a producer counts as gone, and what it held as nobody's.
        but: dispatches to leave out.
        limit: most dispatches; the oldest first.
    """
    values = {"now": now, "sent_before": now - overdue, "seen_after": now - silence, "but": list(but), "limit": limit}
    return [_read(row) for row in connection.execute(_OVERDUE, values)]


def load_expired(connection: Connection, expired_before: datetime, *, after: int, limit: int) -> list[Unfinished]:
    """Load dispatches that miss outcomes and were out of date at a given moment, by id, from past `after` on."""
    values = {"expired_before": expired_before, "after": after, "limit": limit}
    return [_read(row) for row in connection.execute(_EXPIRED, values)]


def load_created(connection: Connection, dispatch_ids: Sequence[int]) -> dict[int, datetime]:
    """Load when dispatches were written; those that do not exist are absent."""
    query = select(dispatches.c.id, dispatches.c.created_at).where(dispatches.c.id.in_(dispatch_ids))
    return {row.id: row.created_at for row in connection.execute(query)} if dispatch_ids else {}


def load_progressed(connection: Connection, dispatch_ids: Sequence[int]) -> frozenset[int]:
    """Return which of these dispatches had an outcome land since they were last sent."""
    return frozenset(connection.execute(_LANDED_SINCE, {"ids": list(dispatch_ids)}).scalars())


def load_asked_revision(connection: Connection, dispatch_id: int, strategy_id: int) -> int:
    """Return the revision in which a dispatch asks one of its strategies."""
    values = {"dispatch_id": dispatch_id, "strategy_id": strategy_id}
    return int(connection.execute(_REVISION, values).scalar_one())


def load_open_breakers(connection: Connection) -> frozenset[int]:
    """Return the strategies whose breaker is open. One that is half open waits for its probe, which may be lost."""
    query = select(breakers.c.strategy_id).where(breakers.c.state == BreakerState.OPEN.value)
    return frozenset(connection.execute(query).scalars())


def mark_sent(connection: Connection, dispatch_ids: Sequence[int], now: datetime) -> None:
    """Note that what was missing of these dispatches is on its queues once more."""
    connection.execute(_MARK_SENT, {"ids": list(dispatch_ids), "now": now})


def count_send(connection: Connection, dispatch_id: int) -> None:
    """Count a sending that came to nothing, without a new one."""
    connection.execute(_COUNT_SEND, {"dispatch_id": dispatch_id})


def _read(row: Row[Any]) -> Unfinished:
    return Unfinished(
        id=row.id,
        candle=_candle(row),
        rewrites=row.rewrites,
        correlation_id=row.correlation_id,
        created_at=row.created_at,
        deadline=row.deadline,
        expires_at=row.expires_at,
        published_at=row.published_at,
        sends=row.sends,
        missing=tuple(_missing(*job, zone=row.created_at) for job in row.jobs),
    )


def _candle(row: Row[Any]) -> Candle | None:
    if row.revision is None:
        return None
    names = ("symbol", "timeframe", "open_time", "open", "high", "low", "close", "volume", "revision")
    return Candle(**{name: getattr(row, name) for name in names})


def _missing(
    strategy_id: int, revision: int, attempt: int | None, tried_s: float | None, *, zone: datetime
) -> MissingJob:
    tried_at = None if tried_s is None else datetime.fromtimestamp(float(tried_s), zone.tzinfo)
    return MissingJob(strategy_id, revision, attempt, tried_at)
