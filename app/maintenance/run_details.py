"""Details of runs that ended long ago: signals, trades, curves, answers. Figures of runs stay, whatever their age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.maintenance.base import Begin, Report
from app.maintenance.partitions import RETENTION_EVERY_S
from app.storage import run_deletion as stored


@dataclass
class RunTrimmer:
    """Deletes the details of runs past their age, the oldest run first.

    Metrics, params and states of units are never touched: the deflated Sharpe ratio of a later run counts them as
    trials (docs/metrics.md).
    """

    begin: Begin
    keep: timedelta
    every_s: float = RETENTION_EVERY_S
    name: str = "run details"
    _run: int | None = None
    _first: int = 0
    """Number that the next batch of that run begins with."""

    def run_once(self, now: datetime) -> Report:
        """Delete a batch of one run's details."""
        with self.begin() as connection:
            run = stored.find_with_details(connection, now - self.keep)
            if run is None:
                return Report()
            first = self._first if run == self._run else 0
            numbers = stored.lock_ended(connection, run)
            rows = stored.delete_details(connection, run, first)
        beyond = first + stored.BATCH
        self._run, self._first = run, beyond if beyond < numbers else 0
        return Report.of(has_more=True, rows=rows)
