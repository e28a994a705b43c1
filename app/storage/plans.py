"""Plans: in which chunks the jobs of dispatches travelled and why. One row for all dispatches with the same plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from app.storage.schema import dispatches, plans

Chunk = dict[str, Any]
"""One chunk of a plan: `priority`, `strategies` (ids), `reason` and `estimated_ms`."""


def save_plan(connection: Connection, digest: str, chunks: Sequence[Chunk]) -> int:
    """Store a plan under its digest and return its id, in the caller's transaction. Idempotent.

    A plan that is known keeps the estimates of its first use.
    """
    row = connection.execute(select(plans.c.id).where(plans.c.digest == digest)).scalar_one_or_none()
    if row is None:
        statement = insert(plans).values(digest=digest, chunks=list(chunks))
        # the update changes nothing, and makes a plan that somebody else stored just now visible
        statement = statement.on_conflict_do_update(index_elements=["digest"], set_={"digest": digest})
        row = connection.execute(statement.returning(plans.c.id)).scalar_one()
    return int(row)


def load_plan(connection: Connection, dispatch_id: int) -> list[Chunk]:
    """Load the plan of a dispatch; empty when none was stored."""
    query = select(plans.c.chunks).join(dispatches, dispatches.c.plan_id == plans.c.id)
    found = connection.execute(query.where(dispatches.c.id == dispatch_id)).scalar_one_or_none()
    return list(found or ())
