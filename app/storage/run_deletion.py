"""Runs taken away: their details, or all of them, a range of numbers at a time so that no lock is held for long.

Units and slices are numbered from 0, and everything a run leaves behind hangs on one of these numbers. Every batch
locks the row of the run first and requires that it has ended; that row goes last. So whoever is killed in between
leaves a run that can be deleted again, and one that goes on is left alone.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.expression import TextClause, bindparam

from app.domain.runs import ENDED, RunState
from app.errors import UnknownRunError, WrongStateError
from app.storage.listings_runs import list_selected

#: Numbers in a batch: with curves of 500 cells some tens of milliseconds.
BATCH = 250

#: What can go without changing a figure of the run, and by which number; of an evaluate run, why units failed stays.
_DETAILS = (
    ("unit_trade_columns", "unit"),
    ("unit_signals", "unit"),
    ("unit_equity", "unit"),
    ("evaluations", "slice"),
    ("selected", "unit"),
    ("rejected", "unit"),
)
_REST = (("evaluation_errors", "unit"), ("units", "number"), ("slices", "number"), ("variants", "number"))

#: Where the positions of an evaluate run are kept in its selection when its details are deleted.
KEPT_POSITIONS = "positions"

_LOCK = text("""
    SELECT state, greatest(units, (SELECT max(number) + 1 FROM slices WHERE run_id = :run)) AS numbers
    FROM runs WHERE id = :run FOR UPDATE
""")
_DELETE_RUN = text("DELETE FROM runs WHERE id = :run")
_UNKEPT = text(f"""
    SELECT kind = 'evaluate' AND selection ? 'selected' AND NOT selection ? '{KEPT_POSITIONS}'
    FROM runs WHERE id = :run
""")  # noqa: S608 - a name of our own
_KEEP = text("UPDATE runs SET selection = selection || :kept WHERE id = :run").bindparams(
    bindparam("kept", type_=JSONB)
)
_WITH_DETAILS = text(f"""
    SELECT id FROM runs r
    WHERE state IN ('complete', 'cancelled') AND finished_at < :ended_before
      AND ({" OR ".join(f"EXISTS (SELECT FROM {table} d WHERE d.run_id = r.id)" for table, _ in _DETAILS)})
    ORDER BY id LIMIT 1
""")  # noqa: S608 - tables of our own
#: Rows are counted rather than matched: of ten thousand units that is a third of the time.
_TRIMMED = text("""
    SELECT CASE kind WHEN 'evaluate' THEN
        EXISTS (SELECT FROM slices s WHERE s.run_id = :run AND s.state = 'done'
                AND NOT EXISTS (SELECT FROM evaluations e WHERE e.run_id = :run AND e.slice = s.number))
        OR NOT EXISTS (SELECT FROM slices WHERE run_id = :run)
    ELSE (SELECT count(*) FILTER (WHERE state = 'succeeded') > (SELECT count(*) FROM unit_equity WHERE run_id = :run)
                 OR count(*) < r.units FROM units WHERE run_id = :run)
    END
    FROM runs r WHERE id = :run
""")


def _deleting(table: str, number: str) -> TextClause:
    condition = f"run_id = :run AND {number} >= :first AND {number} < :beyond"
    return text(f"DELETE FROM {table} WHERE {condition}")  # noqa: S608 - tables of our own


_DELETE_DETAILS = tuple(_deleting(*each) for each in _DETAILS)
_DELETE_REST = tuple(_deleting(*each) for each in _REST)


def lock_ended(connection: Connection, run_id: int) -> int:
    """Lock a run that has ended for the rest of the transaction; return the number that all of its own are below.

    Raises:
        UnknownRunError: there is none of that number.
        WrongStateError: it has not ended; nothing was locked that outlives the transaction.
    """
    row = connection.execute(_LOCK, {"run": run_id}).one_or_none()
    if row is None:
        raise UnknownRunError(f"no run {run_id}: 'candlefleet runs list' lists the newest")
    require_ended(run_id, RunState(row.state))
    return int(row.numbers)


def require_ended(run_id: int, state: RunState) -> None:
    """Require that a run has ended.

    Raises:
        WrongStateError: it has not.
    """
    if state not in ENDED:
        raise WrongStateError(
            f"run {run_id} is {state}: only a run that has ended can be deleted. "
            f"Wait until it is complete, or end it with 'candlefleet runs cancel {run_id}'"
        )


def delete_details(connection: Connection, run_id: int, first: int) -> int:
    """Delete the details of a batch of units and slices, in the caller's transaction; return how many rows.

    The positions that an evaluate run selected are kept with the run.

    Args:
        connection: that holds the lock of the run.
        run_id: of the run.
        first: number that the batch begins with.
    """
    if connection.execute(_UNKEPT, {"run": run_id}).scalar_one():
        connection.execute(_KEEP, {"run": run_id, "kept": {KEPT_POSITIONS: list_selected(connection, run_id)}})
    return _delete(connection, _DELETE_DETAILS, run_id, first)


def delete_units(connection: Connection, run_id: int, first: int) -> int:
    """Delete a batch of units, slices and variants, whose details are gone; return how many rows.

    Args:
        connection: that holds the lock of the run.
        run_id: of the run.
        first: number that the batch begins with.
    """
    return _delete(connection, _DELETE_REST, run_id, first)


def delete_run(connection: Connection, run_id: int) -> None:
    """Delete a run of which nothing else is left."""
    connection.execute(_DELETE_RUN, {"run": run_id})


def find_with_details(connection: Connection, ended_before: datetime) -> int | None:
    """Find the oldest run that ended before a moment and still has details; None when there is none."""
    found: int | None = connection.execute(_WITH_DETAILS, {"ended_before": ended_before}).scalar()
    return found


def is_trimmed(connection: Connection, run_id: int) -> bool:
    """Tell whether details of a run that has ended were deleted, or some of them."""
    return bool(connection.execute(_TRIMMED, {"run": run_id}).scalar())


def _delete(connection: Connection, statements: tuple[TextClause, ...], run_id: int, first: int) -> int:
    values = {"run": run_id, "first": first, "beyond": first + BATCH}
    return sum(connection.execute(statement, values).rowcount for statement in statements)
