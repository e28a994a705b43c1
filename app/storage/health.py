"""What `candlefleet doctor` asks of Postgres: figures that are zero or small when all is well."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, text

from app.storage.partitions import partition_name
from app.storage.schema import PARTITION_SPAN

#: Newest dispatches that are looked at for their correlation id.
LOOKED_AT = 10_000

_NEWEST = text("SELECT coalesce(max(id), 0) FROM dispatches")
_EXISTS = text("SELECT to_regclass(:name) IS NOT NULL")

#: A lock taken with one bigint shows its halves as `classid` and `objid`, and 1 as `objsubid`.
#: Source: PostgreSQL documentation, the view pg_locks.
_HOLDERS = text("""
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid = CAST(CAST(:lock AS bigint) >> 32 AS oid)
      AND objid = CAST(CAST(:lock AS bigint) & 4294967295 AS oid)
""")

_UNFINISHED = text("""
    SELECT count(*) FILTER (WHERE expires_at < clock_timestamp() - CAST(:grace AS interval)) AS overdue,
           count(*) FILTER (WHERE published_at IS NULL AND created_at < clock_timestamp() - CAST(:grace AS interval)
                            AND NOT EXISTS (SELECT FROM producers p WHERE d.id <@ p.held_ids
                                            AND p.seen_at > clock_timestamp() - CAST(:silence AS interval)))
               AS unpublished,
           count(*) AS unfinished, min(id) AS oldest
    FROM dispatches d WHERE state <> 'complete'
""")

_WITHOUT_CORRELATION = text("""
    SELECT count(*) FROM (SELECT correlation_id FROM dispatches ORDER BY id DESC LIMIT :most) AS newest
    WHERE correlation_id = ''
""")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Dispatches that miss outcomes."""

    overdue: int
    """Past their expiry, so that nothing will run any more."""
    unpublished: int
    """Written, not on the queues, and held by no living producer."""
    unfinished: int
    oldest: int | None


def count_partitions_ahead(connection: Connection) -> int:
    """Return how many partitions exist, without a gap, beyond the one in use; -1 if that is missing."""
    number = connection.execute(_NEWEST).scalar_one() // PARTITION_SPAN
    ahead = -1
    while connection.execute(_EXISTS, {"name": partition_name(number + ahead + 1)}).scalar_one():
        ahead += 1
    return ahead


def is_lock_held(connection: Connection, lock: int) -> bool:
    """Tell whether a session holds an advisory lock of this database."""
    return bool(connection.execute(_HOLDERS, {"lock": lock}).scalar_one())


def count_unfinished(connection: Connection, grace: timedelta, silence: timedelta) -> Unfinished:
    """Count dispatches that miss outcomes.

    Args:
        connection: any.
        grace: what maintenance may take to notice.
        silence: time without a sign of life after which a producer counts as gone.
    """
    return Unfinished(*connection.execute(_UNFINISHED, {"grace": grace, "silence": silence}).one())


def count_without_correlation(connection: Connection) -> int:
    """Count the newest dispatches whose correlation id is empty."""
    return int(connection.execute(_WITHOUT_CORRELATION, {"most": LOOKED_AT}).scalar_one())
