"""Cancelling: jobs that an operator takes back end in the ledger, in the transaction that says how they stood."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from app.domain.decisions import DecisionRules
from app.domain.jobs import JobKey, OutcomeStatus, job_id
from app.storage.landing import land_ends
from app.storage.schema import dispatches, outcomes, strategies

#: Largest id that a bigint holds: a message or a person may name any number.
LAST_ID = 2**63 - 1

#: What the ledger keeps as error class and error of a job that an operator took back.
REASON, EXPLANATION = "Cancelled", "taken back by an operator"

#: Who ends such a job, in the ledger's column `worker`.
BY = "operator"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job that should be cancelled has ended."""

    job: str
    dispatch_id: int
    strategy_id: int
    strategy: str
    status: str
    is_news: bool
    """Whether it was cancelled now; False when it had ended before."""


def load_expected(connection: Connection, dispatch_ids: Collection[int]) -> dict[int, tuple[JobKey, ...]]:
    """Load which jobs dispatches expect; a dispatch that does not exist is absent from the answer."""
    columns = (dispatches.c.id, dispatches.c.strategy_ids, dispatches.c.strategy_revisions)
    possible = [number for number in dispatch_ids if number <= LAST_ID]
    rows = connection.execute(select(*columns).where(dispatches.c.id.in_(possible)))
    return {row[0]: tuple(map(JobKey, row[1], row[2])) for row in rows}


def cancel(
    connection: Connection, dispatch_id: int, jobs: Sequence[JobKey], rules: DecisionRules
) -> list[tuple[int, str, bool]]:
    """End those jobs of a dispatch that have not ended, in the caller's transaction. Idempotent.

    A job that lands at the same moment keeps the outcome that came first.

    Args:
        connection: with an open transaction.
        dispatch_id: whose jobs they are.
        jobs: which of them.
        rules: how the dispatch is decided if this completes it.

    Returns:
        For each job its strategy, how it ended, and whether that was done now.

    Raises:
        UnknownDispatchError: the ledger does not hold the dispatch.
    """
    before = _load_statuses(connection, dispatch_id, jobs)
    missing = [key for key in jobs if key.strategy_id not in before]
    if missing:
        status = OutcomeStatus.CANCELLED
        land_ends(connection, dispatch_id, missing, status, reason=REASON, text=EXPLANATION, by=BY, rules=rules)
    after = _load_statuses(connection, dispatch_id, jobs)
    news = {key.strategy_id for key in missing if after[key.strategy_id] == OutcomeStatus.CANCELLED}
    return [(key.strategy_id, after[key.strategy_id], key.strategy_id in news) for key in jobs]


def describe(connection: Connection, ends: Mapping[int, Sequence[tuple[int, str, bool]]]) -> list[Ended]:
    """Name the jobs that `cancel` spoke of, by dispatch."""
    wanted = {strategy_id for of_one in ends.values() for strategy_id, _, _ in of_one}
    found = connection.execute(select(strategies.c.id, strategies.c.name).where(strategies.c.id.in_(wanted)))
    names = {row[0]: row[1] for row in found}
    return [
        Ended(job_id(dispatch_id, number), dispatch_id, number, names.get(number, str(number)), status, is_news)
        for dispatch_id, of_one in ends.items()
        for number, status, is_news in of_one
    ]


def _load_statuses(connection: Connection, dispatch_id: int, jobs: Sequence[JobKey]) -> dict[int, str]:
    query = select(outcomes.c.strategy_id, outcomes.c.status).where(
        outcomes.c.dispatch_id == dispatch_id, outcomes.c.strategy_id.in_([key.strategy_id for key in jobs])
    )
    return {row[0]: row[1] for row in connection.execute(query)}
