"""Closing dispatches before all their outcomes have landed: what is due, and the decision made of what was heard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, text, update
from sqlalchemy.dialects.postgresql import insert

from app.domain.decisions import Decision, Heard
from app.domain.jobs import DispatchState, OutcomeStatus
from app.storage.schema import decisions, dispatches, outcomes

#: Sums of weights are exact only in the domain; this finds candidates, a little too many rather than too few.
_DUE = text("""
    SELECT d.id FROM dispatches d
    WHERE d.state = 'open' AND d.landed < d.expected AND (d.deadline <= :now OR (
        d.created_at <= :grace_before
        AND (SELECT coalesce(sum(asked.weight), 0)
             FROM unnest(d.strategy_ids, d.weights) AS asked(id, weight)
             JOIN outcomes o ON o.dispatch_id = d.id AND o.strategy_id = asked.id AND o.status = 'succeeded')
            >= (:quorum - 1e-9) * (SELECT sum(weight) FROM unnest(d.weights) AS weight)))
    ORDER BY d.id LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Closable:
    """An open dispatch, locked."""

    id: int
    weights: dict[int, float]
    """Weight of every expected strategy, by id."""
    created_at: datetime
    deadline: datetime


def find_due(connection: Connection, now: datetime, grace: timedelta, quorum: float, limit: int) -> list[int]:
    """Find open dispatches whose deadline passed, or whose grace is over and whose quorum was heard.

    Args:
        connection: any; nothing is locked.
        now: current moment.
        grace: time from dispatch after which the quorum is enough.
        quorum: share of the expected weight, 0 to 1.
        limit: most dispatches; the oldest first.
    """
    values = {"now": now, "grace_before": now - grace, "quorum": quorum, "limit": limit}
    return list(connection.execute(_DUE, values).scalars())


def lock_open(connection: Connection, dispatch_id: int) -> Closable | None:
    """Lock a dispatch in the caller's transaction; None if it is not open, or an outcome is landing just now.

    A landing that comes after waits for the transaction, and finds the dispatch closed.
    """
    query = select(dispatches).where(
        dispatches.c.id == dispatch_id,
        dispatches.c.state == DispatchState.OPEN.value,
        dispatches.c.landed < dispatches.c.expected,
    )
    row = connection.execute(query.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    weights = dict(zip(row.strategy_ids, row.weights, strict=True))
    return Closable(row.id, weights, row.created_at, row.deadline)


def load_heard(connection: Connection, dispatch_id: int) -> list[Heard]:
    """Load what has landed of a dispatch."""
    columns = (outcomes.c.strategy_id, outcomes.c.status, outcomes.c.action, outcomes.c.strength)
    rows = connection.execute(select(*columns).where(outcomes.c.dispatch_id == dispatch_id))
    return [Heard(row.strategy_id, OutcomeStatus(row.status), row.action, row.strength) for row in rows]


def close(connection: Connection, dispatch: Closable, decision: Decision, now: datetime) -> None:
    """Record the decision and close the dispatch, in the caller's transaction. A decision made before stays."""
    latency_ms = (now - dispatch.created_at).total_seconds() * 1000
    values = {**decision.model_dump(), "missing": list(decision.missing), "closed_by": decision.closed_by.value}
    connection.execute(
        insert(decisions).values(dispatch_id=dispatch.id, latency_ms=latency_ms, **values).on_conflict_do_nothing()
    )
    connection.execute(
        update(dispatches).where(dispatches.c.id == dispatch.id).values(state=DispatchState.CLOSED.value)
    )
