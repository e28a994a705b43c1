"""Costs: how the jobs of recent dispatches went, by strategy, for the producer's estimates."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, text

from app.domain.breakers import FAILURES
from app.domain.costs import Sample
from app.domain.jobs import OutcomeStatus

#: How far back complete dispatches are looked for, in ids: what is older says little of now.
FARTHEST_BACK = 2000

#: Most complete dispatches that are named.
MOST_DISPATCHES = 256

_RECENT = text("""
    SELECT d.id FROM dispatches d
    WHERE d.id > (SELECT coalesce(max(id), 0) FROM dispatches) - :farthest AND d.state = 'complete'
    ORDER BY d.id DESC LIMIT :most
""")

_SAMPLES = text("""
    SELECT strategy_id, strategy_revision, count(*),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY processing_ms), avg(processing_ms),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY processing_ms),
           count(*) FILTER (WHERE status = ANY(:failures) OR attempt > 0),
           count(*) FILTER (WHERE status = ANY(:stopped))
    FROM outcomes
    WHERE dispatch_id = ANY(:ids) AND (status = 'succeeded' OR status = ANY(:failures))
    GROUP BY strategy_id, strategy_revision
    ORDER BY strategy_id, strategy_revision
""")

_STOPPED = (OutcomeStatus.TIMED_OUT, OutcomeStatus.CRASHED)


def load_complete(connection: Connection) -> list[int]:
    """Return the newest dispatches that are complete, the newest first."""
    values = {"farthest": FARTHEST_BACK, "most": MOST_DISPATCHES}
    return list(connection.execute(_RECENT, values).scalars())


def load_samples(connection: Connection, dispatch_ids: Collection[int]) -> list[Sample]:
    """Load how the jobs of some dispatches went; those that were not executed say nothing and are left out."""
    values = {
        "ids": list(dispatch_ids),
        "failures": [status.value for status in FAILURES],
        "stopped": [status.value for status in _STOPPED],
    }
    return [Sample(*row) for row in connection.execute(_SAMPLES, values)] if dispatch_ids else []
