"""Runs taken away by an operator: all that hangs on them, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Connection

from app.errors import UnknownRunError
from app.operations import Operations
from app.storage import run_deletion, runs
from app.storage.runs import Run


class Deletable(NamedTuple):
    """What would be deleted of what was asked for."""

    runs: Sequence[Run]
    unknown: Sequence[int]
    """Deleted before, or never there."""

    @property
    def units(self) -> int:
        """Of all runs together."""
        return sum(run.units for run in self.runs)


def find_deletable(operations: Operations, run_ids: Sequence[int]) -> Deletable:
    """Find the runs that can be deleted; nothing is.

    Raises:
        UnknownRunError: there is none of them.
        WrongStateError: one has not ended; says what to do.
    """
    found, unknown = list[Run](), list[int]()
    with operations.reading() as connection:
        for run_id in dict.fromkeys(run_ids):
            try:
                run = runs.load_run(connection, run_id)
            except UnknownRunError:
                unknown.append(run_id)
                continue
            run_deletion.require_ended(run.id, run.state)
            found.append(run)
    if not found:
        raise UnknownRunError(f"no run {', '.join(map(str, unknown))}: 'candlefleet runs list' lists the newest")
    return Deletable(found, unknown)


def delete(operations: Operations, run_id: int) -> None:
    """Delete a run that has ended and everything that hangs on it. Safe to repeat, and after a death in between.

    Raises:
        UnknownRunError: there is none of that number.
        WrongStateError: it has not ended, or goes on since a moment ago: what is left of it is trimmed.
    """
    with operations.changing() as connection:
        run_deletion.lock_ended(connection, run_id)
    with suppress(UnknownRunError):  # somebody else deletes it, too, and was faster
        _delete_all(operations, run_id, run_deletion.delete_details)
        _delete_all(operations, run_id, run_deletion.delete_units)
        with operations.changing() as connection:
            run_deletion.lock_ended(connection, run_id)
            run_deletion.delete_run(connection, run_id)


def _delete_all(operations: Operations, run_id: int, delete_batch: Callable[[Connection, int, int], int]) -> None:
    first, numbers = 0, 1
    while first < numbers:
        with operations.changing() as connection:
            # slices are numbered on when they are split, so the end is looked at each time; rows that go lower it
            numbers = max(numbers, run_deletion.lock_ended(connection, run_id))
            delete_batch(connection, run_id, first)
        first += run_deletion.BATCH
