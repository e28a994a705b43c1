"""Partitions of `outcomes`: made ahead of the dispatch ids that will need them."""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.storage.schema import PARTITION_PREFIX, PARTITION_SPAN

#: Partitions that exist beyond the one in use.
AHEAD = 2

#: Advisory lock of whoever makes partitions; any constant of our own does.
LOCK = 0x706172746974

_LAST_DISPATCH = text("SELECT coalesce(max(id), 0) FROM dispatches")
_EXISTING = text("""
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = CAST('outcomes' AS regclass)
""")


def ensure_partitions(connection: Connection) -> int:
    """Make the partitions for every dispatch id in use and the next ones. Idempotent.

    Runs in the caller's transaction, so that ids and their partition are committed together.

    Returns:
        The first dispatch id that has no partition yet.
    """
    # two producers reach the end of the partitions at the same time: one makes the next, the other finds it
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    newest = connection.execute(_LAST_DISPATCH).scalar_one()
    existing = set(connection.execute(_EXISTING).scalars())
    last = newest // PARTITION_SPAN + AHEAD
    for number in range(newest // PARTITION_SPAN, last + 1):
        if partition_name(number) not in existing:
            _create(connection, number)
    return int(last + 1) * PARTITION_SPAN


def partition_name(number: int) -> str:
    """Return the name of the partition that holds dispatch ids from ``number * PARTITION_SPAN`` on."""
    return f"{PARTITION_PREFIX}{number * PARTITION_SPAN:012d}"


def _create(connection: Connection, number: int) -> None:
    # made apart and attached: CREATE ... PARTITION OF would lock out every reader of `outcomes`
    name, low = partition_name(number), number * PARTITION_SPAN
    high = low + PARTITION_SPAN
    bounds = f"dispatch_id >= {low} AND dispatch_id < {high}"
    connection.execute(text(f"CREATE TABLE IF NOT EXISTS {name} (LIKE outcomes INCLUDING ALL, CHECK ({bounds}))"))
    connection.execute(text(f"ALTER TABLE outcomes ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"))
