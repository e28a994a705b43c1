"""Throttling: strategies that take more than their limits allow get their jobs one at a time, further apart. Pure."""

from __future__ import annotations

from typing import NamedTuple

from app.domain.costs import Cost, in_steps
from app.domain.strategies import Limits

#: Longest time by which a throttled job is put off, seconds: it waits in a worker's memory meanwhile.
LONGEST_DELAY_S = 5.0

#: Jobs from which on limits are applied: a P95 of fewer says nothing.
FEWEST_JOBS = 20


class Throttle(NamedTuple):
    """What is held against a strategy, and how far apart its jobs go out."""

    reason: str
    spacing_s: float


def judge(cost: Cost | None, limits: Limits, jobs_per_s: float, slots: int) -> Throttle | None:
    """Tell whether a strategy must be throttled.

    Args:
        cost: what is known of it.
        limits: what it may take.
        jobs_per_s: jobs of it that are asked for.
        slots: of the fleet.

    Returns:
        None when it keeps within its limits; else a spacing at which its jobs keep within its share of the slots,
        and within less of it the further its P95 is over the limit.
    """
    if cost is None or cost.jobs < FEWEST_JOBS:
        return None
    used_percent = 100 * jobs_per_s * cost.mean_ms / 1000 / slots
    reasons = []
    if cost.p95_ms > limits.p95_ms:
        reasons.append(f"P95 about {in_steps(cost.p95_ms):,.0f} ms, limit {limits.p95_ms:,} ms")
    if used_percent > limits.cpu_percent:
        reasons.append(f"wants about {in_steps(used_percent):,.0f} % of all slots' time, limit {limits.cpu_percent} %")
    if not reasons:
        return None
    share = limits.cpu_percent / 100 * min(1.0, limits.p95_ms / in_steps(cost.p95_ms))
    return Throttle("; ".join(reasons), in_steps(cost.mean_ms) / 1000 / (share * slots))


class Spacer:
    """Keeps the jobs of throttled strategies apart."""

    def __init__(self) -> None:
        self._free_at: dict[int, float] = {}

    def delay_s(self, strategy_id: int, spacing_s: float, now: float) -> float:
        """Return how long a job waits, and take its turn.

        Args:
            strategy_id: whose job.
            spacing_s: from one job's start to the next.
            now: seconds that only go forward.
        """
        starts = min(max(now, self._free_at.get(strategy_id, now)), now + LONGEST_DELAY_S)
        self._free_at[strategy_id] = starts + spacing_s
        return starts - now
