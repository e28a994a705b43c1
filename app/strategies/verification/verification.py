"""The gate's order of checks, and its report. Each check means something only when those before it passed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.domain.strategies import Limits
from app.strategies.bars import Bars
from app.strategies.verification.answers import check_answers
from app.strategies.verification.cost import Cost, check_cost, measure
from app.strategies.verification.determinism import Twin, check_determinism, pick_questions
from app.strategies.verification.prefix import check_prefix
from app.strategies.verification.probe import CheckFailedError, Probe
from app.strategies.verification.report import Figures, Report
from app.strategies.verification.scale import check_scale
from app.strategies.verification.warmup import check_warmup

#: Windows that are asked again and again; the cost is measured with them too.
QUESTIONS = 48

#: Seconds that the prefixes, and each check of a sample, may take by what an evaluation costs. A strategy of up to 2 ms
#: a window is checked at every one of 10,000 candles.
SWEEP_S, SAMPLE_S = 20.0, 4.0

#: Fewest evaluations a check plans, and most of a sample.
FEWEST, MOST = 40, 400


@dataclass(frozen=True, slots=True)
class Material:
    """What a strategy is verified with."""

    series: Sequence[Bars]
    twin: Twin | None
    """None when the other process gave no answers."""
    limits: Limits
    memory_mb: Callable[[], float] = lambda: 0.0
    """Returns the most memory the process has had, MiB."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds, for differences; the process's own may be stopped."""
    lively: Sequence[Bars] = ()
    """Those of the series that never stand still, for the warm-up."""


def verify(name: str, probe: Probe, material: Material) -> Report:
    """Make the checks in order until one fails.

    Args:
        name: of the strategy.
        probe: of the strategy; nothing was asked yet.
        material: what to check with.
    """
    began = material.clock()
    measured: dict[str, float] = {}
    try:
        _check(probe, material, measured)
        finding = None
    except CheckFailedError as error:
        finding = error.finding
    candles, elapsed_s = sum(map(len, material.series)), round(material.clock() - began, 3)
    figures = Figures(candles=candles, evaluations=probe.evaluations, elapsed_s=elapsed_s, **measured)
    return Report(strategy=name, passed=finding is None, finding=finding, figures=figures)


def _check(probe: Probe, material: Material, measured: dict[str, float]) -> None:
    series = material.series
    questions = pick_questions(series, probe.window, QUESTIONS)
    answers, cost = measure(probe, questions, material.limits, material.memory_mb, material.clock)
    measured.update({name: round(value, 3) for name, value in cost._asdict().items()})
    check_cost(cost, material.limits, questions[0])
    check_determinism(probe, questions, answers, material.twin)
    most = min(MOST, _affordable(cost, SAMPLE_S))
    check_answers(probe, series, most)
    check_prefix(probe, series, _affordable(cost, SWEEP_S))
    check_warmup(probe, material.lively, most)
    check_scale(probe, series, most)


def _affordable(cost: Cost, seconds: float) -> int:
    return max(FEWEST, int(seconds * 1000 / max(cost.mean_ms, 1e-3)))
