"""The chunk planner: which jobs of one candle and priority travel together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from app.domain.jobs import JobKey


def plan_chunks(jobs: Sequence[JobKey], most: int) -> tuple[tuple[JobKey, ...], ...]:
    """Split jobs into as few chunks as the limit allows, of sizes that differ by one at most.

    Deterministic; loses and repeats no job and keeps their order.

    Args:
        jobs: all of one candle and priority.
        most: most jobs in one chunk, at least 1.
    """
    count = -(-len(jobs) // most)
    bounds = [len(jobs) * number // count for number in range(count + 1)] if count else [0]
    return tuple(tuple(jobs[low:high]) for low, high in pairwise(bounds))
