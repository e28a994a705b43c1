"""The deadline closer: a decision is made without everybody when it is due. Who speaks later is only recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.decisions import ClosedBy, Decision, DecisionRules, Heard, decide
from app.maintenance.base import Begin, Report
from app.storage.closing import Closable, close, find_due, load_heard, lock_open

#: Most dispatches closed in one round; the next follows at once.
MOST_CLOSED = 500


def due_decision(dispatch: Closable, heard: Sequence[Heard], now: datetime, rules: DecisionRules) -> Decision | None:
    """Return the decision that is due of a dispatch past its grace; None while it should wait. Pure.

    Args:
        dispatch: open, and not complete.
        heard: what has landed.
        now: current moment.
        rules: quorum and threshold.
    """
    is_late = dispatch.deadline <= now
    closed_by = ClosedBy.DEADLINE if is_late else ClosedBy.QUORUM
    decision = decide(dispatch.weights, heard, quorum=rules.quorum, threshold=rules.threshold, closed_by=closed_by)
    if not decision.missing:
        return None  # complete: whoever lands the last outcome decides
    return decision if is_late or decision.action is not None else None


@dataclass(frozen=True, slots=True)
class Closer:
    """Closes open dispatches that are due."""

    begin: Begin
    rules: DecisionRules
    grace: timedelta
    every_s: float
    name: str = "closer"

    def run_once(self, now: datetime) -> Report:
        """Close what is due."""
        with self.begin() as connection:
            due = find_due(connection, now, self.grace, self.rules.quorum, MOST_CLOSED)
        closed = [by for by in (self._close(dispatch_id, now) for dispatch_id in due) if by is not None]
        return Report.of(
            has_more=len(closed) == MOST_CLOSED,
            by_deadline=closed.count(ClosedBy.DEADLINE),
            by_quorum=closed.count(ClosedBy.QUORUM),
        )

    def _close(self, dispatch_id: int, now: datetime) -> ClosedBy | None:
        with self.begin() as connection:
            dispatch = lock_open(connection, dispatch_id)
            if dispatch is None:
                return None
            # read after the lock: nothing can land in between
            decision = due_decision(dispatch, load_heard(connection, dispatch_id), now, self.rules)
            if decision is None:
                return None
            close(connection, dispatch, decision, now)
            return decision.closed_by
