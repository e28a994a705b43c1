"""Cost: what an evaluation takes, against the strategy's own limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from app.domain.jobs import Signal
from app.domain.strategies import Limits
from app.strategies.bars import Bars
from app.strategies.verification.probe import Probe, failed
from app.strategies.verification.report import Check, Reason

#: Evaluations after which one that is far too slow is not asked any more.
LEAST = 5


class Cost(NamedTuple):
    """What evaluations of a whole window took."""

    mean_ms: float
    p95_ms: float
    memory_mb: float


class Timed(NamedTuple):
    """Answers, and what they took."""

    answers: list[Signal]
    """Fewer than the windows when each took far too long."""
    cost: Cost


def measure(
    probe: Probe,
    windows: Sequence[Bars],
    limits: Limits,
    memory_mb: Callable[[], float] = lambda: 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Ask about windows and measure; stops early when each takes longer than 95 of 100 may.

    Args:
        probe: of the strategy.
        windows: to ask about.
        limits: of the strategy.
        memory_mb: returns the most memory the process has had, MiB.
        clock: seconds, for differences.

    Raises:
        CheckFailedError: as `Probe.signal`.
    """
    before = memory_mb()
    took: list[float] = []
    answers = []
    for window in windows:
        began = clock()
        answers.append(probe.signal(window))
        took.append((clock() - began) * 1000)
        if len(took) >= LEAST and min(took) > limits.p95_ms:
            break
    return Timed(answers, Cost(float(np.mean(took)), float(np.quantile(took, 0.95)), memory_mb() - before))


def check_cost(cost: Cost, limits: Limits, window: Bars) -> None:
    """Hold what evaluations took against the limits.

    Args:
        cost: as measured.
        limits: of the strategy.
        window: one that was asked about.

    Raises:
        CheckFailedError: 95 of 100 take longer than p95_ms, or memory grew by more than memory_mb.
    """
    if cost.p95_ms > limits.p95_ms:
        expected = f"95 of 100 evaluations within {limits.p95_ms} ms (limits.p95_ms)"
        found = f"{cost.p95_ms:.1f} ms, {cost.mean_ms:.1f} ms on average"
        raise failed(window, Check.COST, Reason.SLOW, expected, found)
    if cost.memory_mb > limits.memory_mb:
        expected = f"at most {limits.memory_mb} MiB more than before (limits.memory_mb)"
        raise failed(window, Check.COST, Reason.MEMORY, expected, f"{cost.memory_mb:.0f} MiB")
