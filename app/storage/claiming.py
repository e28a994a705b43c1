"""Claims on the work of a run: the statements that units and slices share, each in a table of its own."""

from __future__ import annotations


def adopt_statement(table: str, columns: str) -> str:
    """Return the statement that claims one row of a slot that is gone, with its attempt counted before it starts.

    It is claimed alone: it may be what killed the slot that had it. A lock of two numbers has `objsubid` 2.

    Args:
        table: that has the rows.
        columns: to be returned.
    """
    return f"""
    UPDATE {table} w SET claim = %(claim)s, ticket = %(ticket)s, started_at = clock_timestamp(), worker = %(worker)s,
                         attempts = w.attempts + 1
    FROM (SELECT run_id, number FROM {table}
          WHERE run_id = %(run)s AND state = 'pending' AND claim <> %(claim)s
            AND (ticket = %(ticket)s
                 OR ticket NOT IN (SELECT objid::int FROM pg_locks
                                   WHERE locktype = 'advisory' AND objsubid = 2 AND granted
                                     AND classid = CAST(%(run)s AS oid)
                                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())))
          ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED) AS left_over
    WHERE w.run_id = left_over.run_id AND w.number = left_over.number
      AND EXISTS (SELECT FROM runs WHERE id = %(run)s AND state = 'running')
    RETURNING {columns}
"""  # noqa: S608 - names of our own


def release_statement(table: str) -> str:
    """Return the statement that gives back what a claim has and did not record."""
    return (
        f"UPDATE {table} SET claim = NULL, ticket = NULL "  # noqa: S608 - the same
        "WHERE run_id = %(run)s AND state = 'pending' AND claim = %(claim)s"
    )
