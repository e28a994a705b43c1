"""What is old enough to go: partitions of outcomes, dropped as a whole, then the small rows that belonged to them."""

from __future__ import annotations

from datetime import datetime

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from app.storage.partitions import partition_name
from app.storage.schema import PARTITION_PREFIX, PARTITION_SPAN

#: Seconds to wait for the lock on `outcomes`: whoever lands an outcome queues up behind it meanwhile.
LOCK_WAIT = "250ms"

_PARTITIONS = text("""
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = CAST('outcomes' AS regclass) ORDER BY c.relname
""")
_NEWEST = text("SELECT coalesce(max(id), 0) FROM dispatches")
_IN_USE = text("""
    SELECT EXISTS (SELECT FROM dispatches
                   WHERE id >= :low AND id < :high AND (created_at > :written_before OR state <> 'complete'))
""")
_DELETE = text("""
    WITH old AS (SELECT id FROM dispatches WHERE id < :below ORDER BY id LIMIT :limit),
         tried AS (DELETE FROM attempts WHERE dispatch_id IN (SELECT id FROM old)),
         decided AS (DELETE FROM decisions WHERE dispatch_id IN (SELECT id FROM old))
    DELETE FROM dispatches WHERE id IN (SELECT id FROM old)
""")
#: Ids grow with time, so the oldest rows are found without looking at the others.
_DELETE_HISTORY = tuple(
    text(f"""
        DELETE FROM {table} WHERE id IN (
            SELECT id FROM (SELECT * FROM {table} ORDER BY id LIMIT :limit) AS oldest
            WHERE created_at < :written_before {but})
    """)  # noqa: S608 - tables of our own
    for table, but in (("position_events", ""), ("actions", "AND state <> 'pending'"))
)


def list_partitions(connection: Connection) -> list[int]:
    """Return the first dispatch id of every partition, ascending."""
    names = connection.execute(_PARTITIONS).scalars()
    return [int(name.removeprefix(PARTITION_PREFIX)) for name in names if name.startswith(PARTITION_PREFIX)]


def is_droppable(connection: Connection, low: int, written_before: datetime) -> bool:
    """Tell whether every dispatch of a partition is complete and older than a given moment.

    The partition of the newest dispatch and those made ahead are never droppable.
    """
    high = low + PARTITION_SPAN
    if connection.execute(_NEWEST).scalar_one() < high:
        return False
    values = {"low": low, "high": high, "written_before": written_before}
    return not connection.execute(_IN_USE, values).scalar_one()


def drop_partition(connection: Connection, low: int) -> bool:
    """Take a partition out of `outcomes` and drop it, in the caller's transaction.

    Returns:
        False, and nothing has changed, if somebody reads `outcomes` for long.
    """
    name = partition_name(low // PARTITION_SPAN)
    try:
        with connection.begin_nested():
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
            connection.execute(text(f"ALTER TABLE outcomes DETACH PARTITION {name}"))
            connection.execute(text(f"DROP TABLE {name}"))
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            return False
        raise
    return True


def delete_dispatches(connection: Connection, below: int, limit: int) -> int:
    """Delete the oldest dispatches below an id, with their attempts and decisions; return how many.

    Args:
        connection: with an open transaction.
        below: first id that stays.
        limit: most dispatches.
    """
    return connection.execute(_DELETE, {"below": below, "limit": limit}).rowcount


def delete_position_history(connection: Connection, written_before: datetime, limit: int) -> int:
    """Delete the oldest position events and order intents that were written before a moment; return how many.

    Positions stay, and so do intents that are still to be sent.

    Args:
        connection: with an open transaction.
        written_before: what is younger stays.
        limit: most rows of each table.
    """
    values = {"written_before": written_before, "limit": limit}
    return sum(connection.execute(statement, values).rowcount for statement in _DELETE_HISTORY)
