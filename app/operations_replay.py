"""Replay: a stored dispatch is evaluated again, and every difference from its recorded outcomes is told.

The window comes from Postgres as of the dispatched candle, the revision is the recorded one, and user code runs in the
gate's processes only. Of the outcomes, those are compared that the strategy itself made: a signal or an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.jobs import OutcomeStatus
from app.errors import ConfigurationError, UnknownDispatchError
from app.gate.sandbox import replay_all
from app.gate.wire import Answer, Case
from app.operations import Operations
from app.storage.replaying import StoredDispatch, StoredJob, load_dispatch
from app.strategies.fingerprint import Fingerprint, take_fingerprint
from app.strategies.registry import Registry
from app.verifying import load_bars

#: Ends that the strategy's own code made; any other says nothing about what it computes.
COMPARED = (OutcomeStatus.SUCCEEDED.value, OutcomeStatus.FAILED.value)


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that is not what was recorded."""

    value: str
    recorded: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class ReplayedJob:
    """What came of one job."""

    strategy: str
    revision: int
    status: str
    """As recorded."""
    differences: Sequence[Difference] = ()
    note: str = ""
    """Why it was not compared, or what explains a difference."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a dispatch."""

    dispatch: StoredDispatch
    candles: int
    """In its window."""
    jobs: Sequence[ReplayedJob]

    @property
    def differs(self) -> bool:
        """Whether anything is not what was recorded."""
        return any(job.differences for job in self.jobs)


def replay(operations: Operations, dispatch_id: int, strategy: str | None = None) -> Replay:
    """Evaluate a stored dispatch again.

    Args:
        operations: of the deployment.
        dispatch_id: of it.
        strategy: name of the only one wanted; None for all.

    Raises:
        UnknownDispatchError: there is no such dispatch, or its candle is gone.
        UnknownStrategyError: it has no outcome of that strategy.
        GateError: the gate's own process failed.
    """
    settings = operations.settings
    with operations.reading() as connection:
        stored = load_dispatch(connection, dispatch_id, strategy, settings.worker.window)
        bars = load_bars(connection, stored.symbol, stored.timeframe, stored.open_time, settings.worker.window)
    if not len(bars) or int(bars.open_time[-1]) != round(stored.open_time.timestamp() * 1000):
        raise UnknownDispatchError(f"the candle of dispatch {dispatch_id} is not in Postgres any more")
    asked = [job for job in stored.jobs if job.status in COMPARED]
    answers = replay_all([_case(job) for job in asked], bars, settings.strategies.modules) if asked else []
    answered = dict(zip([job.key for job in asked], answers, strict=True))
    registry = Registry(settings.strategies.modules)
    jobs = [_compare(job, answered.get(job.key), registry) for job in stored.jobs]
    return Replay(stored, len(bars), jobs)


def _case(job: StoredJob) -> Case:
    found = job.revision
    return Case(name=found.name, implementation=found.implementation, params=found.params, limits=found.limits)


def _compare(job: StoredJob, answer: Answer | None, registry: Registry) -> ReplayedJob:
    name, revision = job.revision.name, job.key.revision
    if answer is None:
        return ReplayedJob(name, revision, job.status, note=f"not compared: {job.status} is no answer of its code")
    differences = _differences(job, answer)
    return ReplayedJob(name, revision, job.status, differences, _explain(job, registry))


def _differences(job: StoredJob, answer: Answer) -> list[Difference]:
    if answer.signal is None or job.status != OutcomeStatus.SUCCEEDED:
        recorded = job.error or "a signal"
        replayed = answer.error or "a signal"
        # the message may hold an address or a time: the class says what happened
        same = job.error is not None and answer.error is not None and _kind(recorded) == _kind(replayed)
        return [] if same else [Difference("error", recorded, replayed)]
    signal = answer.signal.model_dump(mode="json")
    return [Difference(name, value, signal[name]) for name, value in job.values.items() if signal[name] != value]


def _kind(error: str) -> str:
    return error.partition(":")[0]


def _explain(job: StoredJob, registry: Registry) -> str:
    """Say whether the code here is that of the recorded revision."""
    if job.revision.fingerprint is None:
        return "nobody took the fingerprint of this revision: its code may have been another"
    try:
        built = registry.create(job.revision.implementation, job.revision.params, name=job.revision.name)
    except ConfigurationError as error:
        return str(error)
    wanted = Fingerprint.read(job.revision.fingerprint)
    found = take_fingerprint(built, registry.allowed_modules)
    if wanted.code != found.code:
        return f"the code here is not that of revision {job.key.revision}"
    return "" if wanted.platform == found.platform else "the SDK, numpy or TA-Lib here are other versions"
