"""The expirer: jobs that nobody started before their candle was out of date end as `expired`.

Celery drops a message past its `expires` without a word, so this is where the outcome of such a job comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.decisions import DecisionRules
from app.domain.jobs import OutcomeStatus
from app.errors import JobExpiredError
from app.maintenance.base import Begin, Report
from app.maintenance.judging import Held
from app.storage.landing import land_ends
from app.storage.unfinished import MissingJob, Unfinished, load_expired
from app.storage.watch import load_living

#: Most dispatches read at a time.
PAGE = 200


def find_unheld(dispatch: Unfinished, held: Held) -> tuple[MissingJob, ...]:
    """Return the missing jobs that no living node can be working on. Pure."""
    return tuple(job for job in dispatch.missing if not held.may_hold(dispatch.id, job.strategy_id))


@dataclass
class Expirer:
    """Ends jobs that are out of date."""

    begin: Begin
    rules: DecisionRules
    silence: timedelta
    every_s: float
    name: str = "expirer"
    _first_at: datetime | None = None

    def run_once(self, now: datetime) -> Report:
        """End what is out of date for so long that every living node has said what it holds of it."""
        self._first_at = self._first_at or now
        if now - self._first_at < self.silence:
            return Report()  # whoever lives has not had the time to say so, if Postgres has just come back
        with self.begin() as connection:
            held = Held(task_id for node in load_living(connection, now - self.silence) for task_id in node.held)
        expired, after = 0, 0
        while page := self._load(now, after):
            expired += sum(self._expire(dispatch, find_unheld(dispatch, held), now) for dispatch in page)
            after = page[-1].id
        return Report.of(expired=expired)

    def _load(self, now: datetime, after: int) -> Sequence[Unfinished]:
        with self.begin() as connection:
            return load_expired(connection, now - self.silence, after=after, limit=PAGE)

    def _expire(self, dispatch: Unfinished, jobs: Sequence[MissingJob], now: datetime) -> int:
        if jobs:
            late_s = (now - dispatch.expires_at).total_seconds()
            with self.begin() as connection:
                land_ends(
                    connection,
                    dispatch.id,
                    [job.key for job in jobs],
                    OutcomeStatus.EXPIRED,
                    reason=JobExpiredError.__name__,
                    text=f"expected to start by {dispatch.expires_at.isoformat()}, was not {late_s:.0f} s later",
                    by="maintenance",
                    rules=self.rules,
                )
        return len(jobs)
