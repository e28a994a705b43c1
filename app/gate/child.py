"""What happens to one strategy in a process of its own: built, confined, asked.

Nothing comes back to its parent but the text of an answer.
"""

from __future__ import annotations

import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.errors import ConfigurationError
from app.gate.clock import SHIFTS_S, StoppedClock, user_modules
from app.gate.guard import Guard
from app.gate.limits import GateWatch, Mark, confine, peak_mb
from app.gate.wire import Answer, Case, Mode, Request, TwinAnswers
from app.processes import die_with_parent
from app.strategies.bars import Bars
from app.strategies.fingerprint import find_modules
from app.strategies.formulas import guard_talib
from app.strategies.registry import Registry
from app.strategies.sdk import Strategy
from app.strategies.verification.cost import measure
from app.strategies.verification.determinism import Twin, pick_questions
from app.strategies.verification.probe import CheckFailedError, Probe
from app.strategies.verification.report import Check, Reason, Report, build_finding
from app.strategies.verification.verification import QUESTIONS, Material, verify

#: Python's own, before the clock is stopped.
_real_clock = time.perf_counter


class Child:
    """A strategy in its process.

    Args:
        request: what is to be done.
        series: candles of it.
        mark: shared with the parent.
    """

    def __init__(self, request: Request, series: Sequence[Bars], mark: Mark) -> None:
        self._request = request
        self._series = series
        self._mark = mark
        self._clock = StoppedClock()

    def work(self, case: Case, twin: TwinAnswers | None) -> dict[str, Any]:
        """Do what is asked with one case; return its document."""
        _prepare()
        registry = Registry(self._request.prefixes)
        try:
            strategy = registry.create(case.implementation, case.params, name=case.name)
        except ConfigurationError as error:
            return self._unusable(case, str(error))
        probe = self._probe(case, strategy)
        if self._request.mode is Mode.REPLAY:
            return self._replay(probe)
        if self._request.mode is Mode.TWIN:
            return self._answer_as_twin(case, probe)
        return self._verify(case, probe, twin)

    def _probe(self, case: Case, strategy: Strategy) -> Probe:
        cls, params = type(strategy), strategy.params
        names = [(bars.symbol, bars.timeframe.value) for bars in self._series]
        guard = Guard()
        watch = GateWatch(case.limits, self._request.window, names, self._mark, guard)
        probe = Probe(lambda: cls(params, name=case.name), self._request.window, watch)
        if self._request.mode is not Mode.REPLAY:
            self._clock.install(user_modules(find_modules(strategy, self._request.prefixes)))
        guard.install()
        return probe

    def _unusable(self, case: Case, error: str) -> dict[str, Any]:
        if self._request.mode is Mode.REPLAY:
            return Answer(error=error).model_dump(mode="json")
        if self._request.mode is Mode.TWIN:
            return {}
        finding = build_finding(Check.BUILD, Reason.UNUSABLE, "a strategy that can be built", error)
        return Report(strategy=case.name, passed=False, finding=finding).model_dump(mode="json")

    def _replay(self, probe: Probe) -> dict[str, Any]:
        try:
            answer = Answer(signal=probe.signal(self._series[0]))
        except CheckFailedError as error:
            answer = Answer(error=error.finding.found)
        return answer.model_dump(mode="json")

    def _answer_as_twin(self, case: Case, probe: Probe) -> dict[str, Any]:
        questions = pick_questions(self._series, probe.window, QUESTIONS)
        try:
            plain, _ = measure(probe, questions, case.limits, clock=_real_clock)
            shifted = [self._shifted(probe, questions[: len(plain)], shift_s) for shift_s in SHIFTS_S]
        except CheckFailedError:  # the verification finds the same
            return {}
        return TwinAnswers(plain=tuple(plain), shifted=tuple(map(tuple, shifted))).model_dump(mode="json")

    def _shifted(self, probe: Probe, questions: Sequence[Bars], shift_s: float) -> list[Any]:
        self._clock.shift_s = shift_s
        strategy = probe.make()
        return [probe.signal(bars, strategy) for bars in questions]

    def _verify(self, case: Case, probe: Probe, twin: TwinAnswers | None) -> dict[str, Any]:
        known = None if twin is None else Twin(twin.plain, twin.shifted)
        lively = self._series[: self._request.lively]
        material = Material(self._series, known, case.limits, peak_mb, _real_clock, lively)
        return verify(case.name, probe, material).model_dump(mode="json")


def _prepare() -> None:
    die_with_parent(signal.SIGKILL)
    confine()
    guard_talib()
    warnings.simplefilter("ignore")
    if "numpy.random" in sys.modules:
        # a fork shares the state of numpy's global generator: it must not look repeatable
        np.random.seed()
