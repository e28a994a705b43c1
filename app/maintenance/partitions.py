"""Partitions of `outcomes`: made before they are needed, dropped when everything in them is old."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.maintenance.base import Begin, Report
from app.storage.partitions import ensure_partitions
from app.storage.retention import (
    delete_dispatches,
    delete_position_history,
    drop_partition,
    is_droppable,
    list_partitions,
)

#: Seconds between two looks at whether a partition must be made: it takes minutes at least to fill one.
AHEAD_EVERY_S = 10.0

#: Seconds between two looks for what is old.
RETENTION_EVERY_S = 600.0

#: Dispatches deleted in one transaction: some milliseconds.
MOST_DELETED = 1000


@dataclass(frozen=True, slots=True)
class Partitioner:
    """Makes partitions ahead. The producer does so too when it has to: this keeps it from having to."""

    begin: Begin
    every_s: float = AHEAD_EVERY_S
    name: str = "partitioner"

    def run_once(self, now: datetime) -> Report:  # noqa: ARG002 - ids decide, not the time
        """Make the partitions that will be needed next."""
        with self.begin() as connection:
            before = list_partitions(connection)
            ensure_partitions(connection)
            return Report.of(made=len(list_partitions(connection)) - len(before))


@dataclass(frozen=True, slots=True)
class Retention:
    """Drops outcomes that are past their age, a partition at a time, never row by row.

    Dispatches, attempts and decisions are one row where outcomes are fifty, so they are deleted, in batches.
    """

    begin: Begin
    keep: timedelta
    every_s: float = RETENTION_EVERY_S
    name: str = "retention"

    def run_once(self, now: datetime) -> Report:
        """Drop one partition if one is old; delete a batch of what belonged to dropped ones, and of position events."""
        dropped = self._drop_oldest(now - self.keep)
        with self.begin() as connection:
            remaining = list_partitions(connection)
            deleted = delete_dispatches(connection, remaining[0], MOST_DELETED) if remaining else 0
        with self.begin() as connection:
            history = delete_position_history(connection, now - self.keep, MOST_DELETED)
        has_more = dropped > 0 or deleted == MOST_DELETED or history >= MOST_DELETED
        return Report.of(has_more=has_more, dropped=dropped, deleted=deleted, history=history)

    def _drop_oldest(self, written_before: datetime) -> int:
        with self.begin() as connection:
            oldest = min(list_partitions(connection), default=None)
            if oldest is None or not is_droppable(connection, oldest, written_before):
                return 0
            return int(drop_partition(connection, oldest))
