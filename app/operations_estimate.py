"""What a batch run will cost, from what runs and live jobs cost before."""

from __future__ import annotations

from typing import NamedTuple

from app.broker import BATCH_QUEUE
from app.domain.runs import Method, RunSpec, Variant
from app.operations import Operations
from app.runs.planning import Plan
from app.storage import runs
from app.storage.costs import load_complete, load_samples
from app.storage.nodes import count_slots


class Estimate(NamedTuple):
    """What a plan will cost."""

    work_s: float | None
    """Of slots, all together; None when nothing is known of one of its strategies."""
    slots: int
    """That serve runs now."""
    elapsed_s: float | None
    """With these; None without any."""
    unknown: tuple[str, ...]
    """Implementations of which nothing is known yet."""


def estimate(operations: Operations, spec: RunSpec, planned: Plan) -> Estimate:
    """Estimate what a plan costs, from units of earlier runs, else from live jobs."""
    with operations.reading() as connection:
        implementations = {variant.implementation for variant in planned.variants}
        known = runs.load_costs(connection, spec.kind, spec.method, implementations)
        jobs = {each.strategy_id: each.mean_ms for each in load_samples(connection, load_complete(connection))}
        slots = count_slots(connection, operations.settings.silence, [BATCH_QUEUE])
    window = 1 if planned.evaluation is not None or spec.method is Method.WINDOWS else operations.settings.worker.window
    costs = [_cost_ms(variant, known, jobs, window) for variant in planned.variants]
    unknown = {v.implementation for v, cost in zip(planned.variants, costs, strict=True) if cost is None}
    if unknown:
        return Estimate(None, slots, None, tuple(sorted(unknown)))
    work_s = sum((costs[unit.variant] or 0.0) * unit.candles for unit in planned.units) / 1000
    return Estimate(work_s, slots, work_s / min(slots, spec.limits.concurrency) if slots else None, ())


def _cost_ms(variant: Variant, known: dict[str, float], jobs: dict[int, float], window: int) -> float | None:
    """Return what a candle costs: a job computes a window for one, a unit computes each candle once."""
    if variant.implementation in known:
        return known[variant.implementation]
    job_ms = jobs.get(variant.strategy_id or 0)
    return None if job_ms is None else job_ms / window
