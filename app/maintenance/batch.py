"""Batch runs that lost their tickets, or ended without anybody noticing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.maintenance.base import Begin, Report
from app.storage.runs import close_finished
from app.tickets import Tickets


@dataclass(frozen=True, slots=True)
class BatchKeeper:
    """Sends the tickets that running runs are missing, and completes runs that have nothing left to do."""

    begin: Begin
    tickets: Tickets
    every_s: float
    name: str = "batch"

    def run_once(self, now: datetime) -> Report:
        """Do what is due."""
        with self.begin() as connection:
            return Report.of(completed=close_finished(connection), sent=self.tickets.send_missing(connection, now))
