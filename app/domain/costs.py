"""What strategies cost: a robust moving estimate of each one's processing time and failures. Pure.

Estimates follow medians, and no single look moves them far: a slot that was starved by its machine for a moment is
not a slow strategy. What reads them sees steps, not every wobble, so that plans stay the same while nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

#: Jobs that an estimate remembers: a look at so many new ones moves it half of the way.
MEMORY_JOBS = 64

#: Factor by which one look may move an estimate at most.
FARTHEST = 8.0

#: Share of recent jobs that failed from which on a strategy counts as failing.
FAILING_SHARE = 0.05

#: Mean over median from which on a strategy counts as unsteady: single slow looks of a busy machine stay below it.
UNSTEADY = 10.0

#: Steps in which costs are told, as parts of a doubling: a factor of the square root of two.
STEPS_PER_DOUBLING = 2

#: Least cost told, ms: Python cannot call anything that answers sooner.
LEAST_MS = 0.001

#: Estimated work that is not split for the sake of an idle slot, ms: what a message costs by itself, in the worker's
#: main process, Redis and the slot (docs/performance.md).
LEAST_WORK_MS = 2.0


class Room(NamedTuple):
    """How much a message may hold."""

    jobs: int
    work_ms: float = math.inf
    """Estimated work of its chunks; one chunk with more travels all the same."""
    slots: int = 1
    """Slots of the fleet: what is sent together is shared out among them, but not in pieces below LEAST_WORK_MS."""


class Sample(NamedTuple):
    """How some recent jobs of a strategy's revision went."""

    strategy_id: int
    revision: int
    jobs: int
    median_ms: float
    mean_ms: float
    p95_ms: float
    failed: int
    """Jobs that failed, or succeeded only when they were tried again."""
    stopped: int
    """Jobs that were timed out or took their slot down."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What is known of a strategy's jobs."""

    revision: int
    jobs: int
    """Jobs it was learned from."""
    median_ms: float
    mean_ms: float
    p95_ms: float
    failing: float
    """Share of recent jobs that failed, 0 to 1; 1 when one was stopped by force."""

    @property
    def is_failing(self) -> bool:
        """Whether it failed lately more often than now and then."""
        return self.failing >= FAILING_SHARE

    @property
    def told_ms(self) -> float:
        """What a job is planned to take, ms: the median, or the mean of one that now and then takes much more."""
        is_unsteady = self.mean_ms > UNSTEADY * self.median_ms
        return in_steps(max(self.mean_ms if is_unsteady else self.median_ms, LEAST_MS))


class CostBook:
    """The costs of all strategies, by their newest revision."""

    def __init__(self) -> None:
        self._costs: dict[int, Cost] = {}

    def note(self, samples: Iterable[Sample]) -> None:
        """Learn from recent jobs; those of a revision older than the known one are ignored."""
        for sample in samples:
            known = self._costs.get(sample.strategy_id)
            if known is None or sample.revision > known.revision:
                self._costs[sample.strategy_id] = _first(sample)
            elif sample.revision == known.revision:
                self._costs[sample.strategy_id] = _moved(known, sample)

    def of(self, strategy_id: int, revision: int) -> Cost | None:
        """Return what is known of a revision; None for one that has not been seen."""
        known = self._costs.get(strategy_id)
        return known if known is not None and known.revision == revision else None


def in_steps(value: float) -> float:
    """Return a positive number raised to the next step, so that what follows from it seldom changes."""
    return float(2.0 ** (math.ceil(STEPS_PER_DOUBLING * math.log2(value)) / STEPS_PER_DOUBLING))


def _first(sample: Sample) -> Cost:
    failing = 1.0 if sample.stopped else sample.failed / sample.jobs
    return Cost(sample.revision, sample.jobs, sample.median_ms, sample.mean_ms, sample.p95_ms, failing)


def _moved(known: Cost, sample: Sample) -> Cost:
    share = sample.jobs / (sample.jobs + MEMORY_JOBS)
    failing = known.failing + share * (sample.failed / sample.jobs - known.failing)
    return replace(
        known,
        jobs=known.jobs + sample.jobs,
        median_ms=_toward(known.median_ms, sample.median_ms, share),
        mean_ms=_toward(known.mean_ms, sample.mean_ms, share),
        p95_ms=_toward(known.p95_ms, sample.p95_ms, share),
        failing=1.0 if sample.stopped else failing,
    )


def _toward(known: float, seen: float, share: float) -> float:
    low, high = known / FARTHEST, max(known, LEAST_MS) * FARTHEST
    return known + share * (min(max(seen, low), high) - known)
