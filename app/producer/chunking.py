"""The chunk planner: which jobs of one candle and priority travel together. Pure.

What is known to be cheap and healthy shares a chunk up to a budget of time; everything else travels alone, where its
own hard limit guards its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from app.domain.costs import LEAST_WORK_MS
from app.domain.jobs import JobKey


class Candidate(NamedTuple):
    """A job to be planned."""

    key: JobKey
    cost_ms: float
    """Estimated time of its strategy's code."""
    alone: str | None = None
    """Why it must not share a chunk; None when it may."""
    is_slow: bool = False
    """Whether that is all that is held against it: its chunk may share a message with other slow ones."""


class Budget(NamedTuple):
    """How much a chunk may hold."""

    work_ms: float = 10.0
    """Estimated time of its jobs together; a job that takes more of it is alone in its chunk."""
    most: int = 256
    """Jobs."""
    slots: int = 1
    """Slots of the fleet: chunks are not fewer while each has `least_ms` of work."""
    least_ms: float = LEAST_WORK_MS
    """Estimated work below which a chunk is not split for the sake of an idle slot."""


class PlannedJobs(NamedTuple):
    """A chunk to be."""

    keys: tuple[JobKey, ...]
    """In the order of the candidates."""
    cost_ms: float
    reason: str
    """Why these and no others."""
    is_alone: bool = False
    """Whether nothing else may share its message."""


def plan_chunks(candidates: Sequence[Candidate], budget: Budget) -> tuple[PlannedJobs, ...]:
    """Plan the chunks of one candle and priority: shared ones first, then those that travel alone.

    Deterministic; loses and repeats no job. The costliest jobs are placed first, each into the chunk with the least
    work (LPT, Graham 1969); a new chunk is begun when it fits into none.

    Args:
        candidates: all of one candle and priority.
        budget: what a chunk may hold.
    """
    place = {candidate.key: number for number, candidate in enumerate(candidates)}
    shared = [each for each in candidates if each.alone is None]
    alone = [
        PlannedJobs((each.key,), each.cost_ms, each.alone, not each.is_slow)
        for each in candidates
        if each.alone is not None
    ]
    chunks = [sorted(jobs, key=lambda each: place[each.key]) for jobs in _share(shared, budget)]
    chunks.sort(key=lambda jobs: place[jobs[0].key])
    return (*(_build_shared(jobs) for jobs in chunks), *alone)


def _build_shared(jobs: Sequence[Candidate]) -> PlannedJobs:
    reason = "cheap and healthy" if len(jobs) > 1 else "nothing to share a chunk with"
    return PlannedJobs(tuple(each.key for each in jobs), sum(each.cost_ms for each in jobs), reason)


def _share(shared: Sequence[Candidate], budget: Budget) -> list[list[Candidate]]:
    chunks: list[list[Candidate]] = [[] for _ in range(_fewest(shared, budget))]
    work = [0.0] * len(chunks)
    for job in sorted(shared, key=lambda each: (-each.cost_ms, each.key)):
        fitting = [number for number, jobs in enumerate(chunks) if _fits(job, jobs, work[number], budget)]
        if not fitting:
            fitting = [len(chunks)]
            chunks.append([])
            work.append(0.0)
        lightest = min(fitting, key=lambda number: (work[number], len(chunks[number]), number))
        chunks[lightest].append(job)
        work[lightest] += job.cost_ms
    return [jobs for jobs in chunks if jobs]


def _fewest(shared: Sequence[Candidate], budget: Budget) -> int:
    """Return how many chunks there must be at least: by number, by work, and so that no slot stays idle."""
    total_ms = sum(each.cost_ms for each in shared)
    for_slots = min(budget.slots, int(total_ms / budget.least_ms), len(shared))
    return max(ceil(len(shared) / budget.most), ceil(total_ms / budget.work_ms), for_slots)


def _fits(job: Candidate, jobs: Sequence[Candidate], work_ms: float, budget: Budget) -> bool:
    return not jobs or (len(jobs) < budget.most and work_ms + job.cost_ms <= budget.work_ms)


def split_evenly(jobs: Sequence[JobKey], most: int) -> tuple[tuple[JobKey, ...], ...]:
    """Split jobs into as few chunks as the limit allows, of sizes that differ by one at most, whatever they cost.

    Args:
        jobs: all of one candle and priority.
        most: most jobs in one chunk, at least 1.
    """
    count = -(-len(jobs) // most)
    bounds = [len(jobs) * number // count for number in range(count + 1)] if count else [0]
    return tuple(tuple(jobs[low:high]) for low, high in pairwise(bounds))
