"""Chunks, from message to rows: window, runtimes, jobs, landing, retries. Reads like the design.

Every job is isolated: what one raises, however it ends, changes nothing for its neighbours.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from app.broker import Envelope, envelope
from app.domain.decisions import Decision
from app.domain.jobs import Chunk, JobKey, Outcome, OutcomeStatus, Signal
from app.errors import JobTimeoutError, PermanentError
from app.settings import WorkerSettings
from app.storage.ledger import Attempt, Landing
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.indicators import IndicatorCache
from workers.runtime.limits import soft_limit
from workers.runtime.strategies import Runtime, RuntimeCache
from workers.runtime.windows import WindowCache

log = structlog.get_logger()

#: Longest error text kept in a row, characters.
ERROR_TEXT_LIMIT = 2000


#: Records chunks in one transaction; returns the decision of each dispatch that is complete now.
LandAll = Callable[[Sequence[Landing], str], Sequence[Decision | None]]


@dataclass(frozen=True, slots=True)
class Ran:
    """How one attempt at a job went."""

    status: OutcomeStatus
    queued_ms: float
    processing_ms: float
    signal: Signal | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of a chunk."""

    landing: Landing
    decision: Decision | None

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """Jobs that ended."""
        return self.landing.outcomes

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Jobs that will be tried again."""
        return self.landing.attempts

    @property
    def failed(self) -> int:
        """How many jobs ended without success."""
        return sum(not outcome.succeeded for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class _Work:
    """A chunk that ran and is to be recorded."""

    chunk: Chunk
    runtimes: Sequence[Runtime]
    landing: Landing


class Executor:
    """Executes chunks in one slot."""

    def __init__(
        self,
        *,
        windows: WindowCache,
        runtimes: RuntimeCache,
        land_all: LandAll,
        publish: Callable[[Sequence[Envelope]], None],
        settings: WorkerSettings,
        worker: str,
    ) -> None:
        self._windows = windows
        self._runtimes = runtimes
        self._land_all = land_all
        self._publish = publish
        self._settings = settings
        self._worker = worker

    def execute(self, chunks: Sequence[Chunk]) -> list[Landed]:
        """Run every job of every chunk, record what happened, and send what should be tried again.

        Idempotent: what was recorded already is computed again and changes nothing.

        Args:
            chunks: they land in one transaction.

        Raises:
            StorageUnavailableError: Postgres is away; nothing is lost, execute the chunks again.
            BrokerUnavailableError: a retry could not be sent; execute the chunks again.
        """
        work = [self._run(chunk) for chunk in chunks]
        decisions = self._land_all([each.landing for each in work], self._worker)
        retries = [self._retry(each) for each in work if each.landing.attempts]
        if retries:
            self._publish(retries)
        landed = [Landed(each.landing, decision) for each, decision in zip(work, decisions, strict=True)]
        for chunk, each in zip(chunks, landed, strict=True):
            _log(chunk, each)
        return landed

    def _run(self, chunk: Chunk) -> _Work:
        runtimes = self._runtimes.runtimes(chunk.jobs, chunk.catalogue_version)
        ran = run_jobs(chunk, runtimes, self._windows.window(chunk))
        return _Work(chunk, runtimes, Landing(chunk.dispatch_id, *sort_out(chunk, runtimes, ran)))

    def _retry(self, work: _Work) -> Envelope:
        """Build the message that tries the failed jobs of a chunk once more."""
        chunk, failed = work.chunk, {attempt.strategy_id for attempt in work.landing.attempts}
        again = [(key, r) for key, r in zip(chunk.jobs, work.runtimes, strict=True) if key.strategy_id in failed]
        names = [runtime.name for _, runtime in again]
        longest_s = self._settings.retry_delay_s(chunk.attempt + 1)
        return envelope(
            chunk.model_copy(update={"jobs": tuple(key for key, _ in again), "attempt": chunk.attempt + 1}),
            names=", ".join(names),
            label=names[0] if len(names) == 1 else None,
            hard_limit_s=max(r.limits.timeout_ms for _, r in again) / 1000 + self._settings.hard_grace_s,
            # half fixed, half random: retries of many chunks that failed together spread out
            countdown_s=longest_s * random.uniform(0.5, 1.0),
        )


def run_jobs(chunk: Chunk, runtimes: Sequence[Runtime], bars: Bars) -> list[Ran]:
    """Run the jobs one after another on the same window; indicators are computed once for all of them."""
    cache = IndicatorCache(bars)
    created_at = chunk.created_at.timestamp()
    return [run_job(runtime, bars, cache, created_at) for runtime in runtimes]


def run_job(runtime: Runtime, bars: Bars, cache: IndicatorCache, created_at: float) -> Ran:
    """Run one job within its soft limit; whatever it raises becomes its result.

    Args:
        runtime: the strategy, or why there is none.
        bars: its window.
        cache: indicators of the window, shared with its neighbours.
        created_at: when its dispatch was written, epoch seconds.
    """
    queued_ms = max(0.0, (time.time() - created_at) * 1000)
    if runtime.strategy is None:
        return Ran(OutcomeStatus.FAILED, queued_ms, 0.0, error=runtime.refusal)
    started = time.perf_counter()
    try:
        with soft_limit(runtime.limits.timeout_ms):
            signal = evaluate(runtime.strategy, bars, cache)
    except JobTimeoutError:
        took = (time.perf_counter() - started) * 1000
        error = TimeoutError(
            f"expected an answer within {runtime.limits.timeout_ms} ms, stopped it after {took:.0f} ms"
        )
        return Ran(OutcomeStatus.TIMED_OUT, queued_ms, took, error=error)
    except BaseException as error:  # user code may raise anything: MemoryError, sys.exit(), even KeyboardInterrupt
        return Ran(OutcomeStatus.FAILED, queued_ms, (time.perf_counter() - started) * 1000, error=error)
    return Ran(OutcomeStatus.SUCCEEDED, queued_ms, (time.perf_counter() - started) * 1000, signal=signal)


def sort_out(chunk: Chunk, runtimes: Sequence[Runtime], ran: Sequence[Ran]) -> tuple[list[Outcome], list[Attempt]]:
    """Tell ends of jobs from attempts that will be followed by another."""
    outcomes, attempts = [], []
    for key, runtime, result in zip(chunk.jobs, runtimes, ran, strict=True):
        if deserves_retry(result, chunk.attempt, runtime):
            attempts.append(_attempt(chunk, key, result))
        else:
            outcomes.append(_outcome(chunk, key, result))
    return outcomes, attempts


def deserves_retry(ran: Ran, attempt: int, runtime: Runtime) -> bool:
    """Tell whether a failed attempt is followed by another: not when trying again gives the same answer."""
    if ran.status is OutcomeStatus.SUCCEEDED or isinstance(ran.error, PermanentError):
        return False
    return runtime.strategy is not None and attempt < runtime.limits.retries


def _outcome(chunk: Chunk, key: JobKey, ran: Ran) -> Outcome:
    return Outcome.model_construct(
        dispatch_id=chunk.dispatch_id,
        strategy_id=key.strategy_id,
        strategy_revision=key.revision,
        status=ran.status,
        signal=ran.signal,
        error_class=_class_name(ran.error),
        error=_text(ran.error),
        attempt=chunk.attempt,
        queued_ms=ran.queued_ms,
        processing_ms=ran.processing_ms,
        worker="",
    )


def _attempt(chunk: Chunk, key: JobKey, ran: Ran) -> Attempt:
    return Attempt(
        strategy_id=key.strategy_id,
        attempt=chunk.attempt,
        status=ran.status,
        error_class=_class_name(ran.error) or "",
        error=_text(ran.error) or "",
        processing_ms=ran.processing_ms,
    )


def _class_name(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__


def _text(error: BaseException | None) -> str | None:
    # Postgres text holds no NUL and no half characters; a strategy's message may, and may raise while it is built
    if error is None:
        return None
    try:
        return str(error).replace("\x00", "�").encode(errors="replace").decode()[:ERROR_TEXT_LIMIT]
    except Exception as broken:
        return f"(its message cannot be shown: {type(broken).__name__})"


def _log(chunk: Chunk, landed: Landed) -> None:
    known = {"dispatch": chunk.dispatch_id, "correlation": chunk.correlation_id}
    for outcome in landed.outcomes:
        if not outcome.succeeded:
            error = f"{outcome.error_class}: {outcome.error}"
            log.warning("job failed", strategy=outcome.strategy_id, status=outcome.status.value, error=error, **known)
    decided, again = landed.decision is not None, len(landed.attempts)
    log.debug("chunk landed", jobs=len(chunk.jobs), again=again, decided=decided, **known)
