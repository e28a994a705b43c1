"""Chunks, from message to rows: window, runtimes, jobs, landing, retries. Reads like the design.

Every job is isolated: what one raises, however it ends, changes nothing for its neighbours.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from app.broker import Envelope, envelope
from app.domain.decisions import Decision
from app.domain.jobs import Chunk, JobKey, Outcome, OutcomeStatus, Signal
from app.errors import JobExpiredError, JobTimeoutError, PermanentError, SlotDiedError
from app.settings import WorkerSettings
from app.storage.landing import Attempt, Landing
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.indicators import IndicatorCache
from workers.runtime.limits import clock
from workers.runtime.memory import LARGER_AFTER_MS, MemoryLimit
from workers.runtime.strategies import Runtime, RuntimeCache
from workers.runtime.windows import WindowCache

log = structlog.get_logger()

#: Seconds after its dispatch within which a first delivery is taken at its word: looking up whether somebody ended
#: its jobs meanwhile costs a round trip.
FRESH_S = 5.0

#: Seconds for which a slot believes what it knows of open breakers; a slot that replaces a dead one knows nothing yet.
STOPPED_FOR_S = 1.0

#: Longest error text kept in a row, characters.
ERROR_TEXT_LIMIT = 2000


#: Records chunks in one transaction; returns the decisions of the dispatches that are complete now, by dispatch.
LandAll = Callable[[Sequence[Landing], str], Mapping[int, Decision]]

#: Notes that the jobs of a chunk run now; and, when they are recorded, what became of them.
Begin = Callable[[Chunk, Sequence[Runtime]], None]
Tell = Callable[[Chunk, Sequence[Runtime], Landing], None]

#: Tells whether a job, by dispatch and strategy, was taken back.
IsRevoked = Callable[[int, int], bool]

#: Notes which strategy's code runs now and its soft limit in milliseconds; 0 for none.
Enter = Callable[[int, int], None]


class BreakerOpenError(PermanentError):
    """A job whose strategy's breaker is open: trying again gives the same answer."""


class Cancelled(PermanentError):  # noqa: N818  # the ledger keeps the name as error class, whoever cancelled the job
    """A job that an operator took back before it began."""


class Ran(NamedTuple):
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
        load_ended: Callable[[int], frozenset[int]],
        publish: Callable[[Sequence[Envelope]], None],
        settings: WorkerSettings,
        worker: str,
        load_stopped: Callable[[], frozenset[int]] = frozenset,
        load_tried: Callable[[int], frozenset[int]] = lambda _: frozenset(),
        enter: Enter = lambda *_: None,
        suspects: Callable[[], frozenset[int]] = frozenset,
        begin: Begin = lambda *_: None,
        tell: Tell = lambda *_: None,
        is_revoked: IsRevoked = lambda *_: False,
    ) -> None:
        self._windows = windows
        self._runtimes = runtimes
        self._land_all = land_all
        self._load_ended = load_ended
        self._publish = publish
        self._settings = settings
        self._worker = worker
        self._load_stopped = load_stopped
        self._load_tried = load_tried
        self._enter = enter
        self._suspects = suspects
        self._begin = begin
        self._tell = tell
        self._is_revoked = is_revoked
        self._stopped: frozenset[int] = frozenset()
        self._stopped_until = 0.0

    def execute(self, chunks: Sequence[Chunk]) -> list[Landed]:
        """Run every job of every chunk, record what happened, and send what should be tried again.

        Idempotent: what was recorded already is computed again and changes nothing.

        Args:
            chunks: they land in one transaction.

        Raises:
            StorageUnavailableError: Postgres is away; nothing is lost, execute the chunks again.
            BrokerUnavailableError: a retry could not be sent; execute the chunks again.
        """
        jobs = sum(len(chunk.jobs) for chunk in chunks)
        suspects = self._suspects() if jobs > 1 else frozenset()
        wanted = [each for each in map(self._still_wanted, chunks) if each is not None]
        safe = [each for each in (self._without(chunk, suspects) for chunk in wanted) if each is not None]
        return self._record([self._run(chunk) for chunk in safe])

    def bury(self, chunk: Chunk, status: OutcomeStatus, text: str) -> list[Landed]:
        """Record an attempt at a job that ended with its slot, and send the job again if it has retries left.

        Idempotent, as `execute`.

        Args:
            chunk: the job alone.
            status: ``crashed``, ``timed_out``, or ``cancelled`` if an operator ended the slot.
            text: what was seen of its end.

        Raises:
            StorageUnavailableError, BrokerUnavailableError: as `execute`.
        """
        runtimes = self._runtimes.runtimes(chunk.jobs, chunk.catalogue_version)
        if status is OutcomeStatus.CANCELLED:
            return self._record([_work(chunk, runtimes, [cancel(chunk.created_at.timestamp())])])
        ran = [Ran(status, waited_ms(chunk), 0.0, error=SlotDiedError(text))]
        return self._record([_work(chunk, runtimes, ran, crashed=[chunk.jobs[0].strategy_id])])

    def _still_wanted(self, chunk: Chunk) -> Chunk | None:
        """Return the chunk without the jobs that have ended meanwhile, by an earlier delivery or by an operator."""
        if chunk.attempt == 0 and waited_ms(chunk) < FRESH_S * 1000:
            return chunk
        ended = self._load_ended(chunk.dispatch_id)
        jobs = tuple(key for key in chunk.jobs if key.strategy_id not in ended)
        if len(jobs) == len(chunk.jobs):
            return chunk
        return chunk.model_copy(update={"jobs": jobs}) if jobs else None

    def _without(self, chunk: Chunk, suspects: frozenset[int]) -> Chunk | None:
        """Send jobs that may kill the slot away, each alone; return the rest."""
        away = [key for key in chunk.jobs if key.strategy_id in suspects]
        if not away:
            return chunk
        runtimes = self._runtimes.runtimes(away, chunk.catalogue_version)
        self._publish([self._alone(chunk, key, runtime) for key, runtime in zip(away, runtimes, strict=True)])
        rest = tuple(key for key in chunk.jobs if key.strategy_id not in suspects)
        return chunk.model_copy(update={"jobs": rest}) if rest else None

    def _alone(self, chunk: Chunk, key: JobKey, runtime: Runtime) -> Envelope:
        return envelope(
            chunk.model_copy(update={"jobs": (key,)}),
            names=runtime.name,
            label=runtime.name,
            hard_limit_s=runtime.limits.timeout_ms / 1000 + self._settings.hard_grace_s,
            countdown_s=self._settings.retry_base_s,
        )

    def _stopped_now(self, chunk: Chunk) -> frozenset[int]:
        """Return the strategies that must not run: jobs sent before their breaker opened would kill slot after slot.

        A job that was tried before is not held back: how it ends must be found out.
        """
        if time.monotonic() > self._stopped_until:
            self._stopped = self._load_stopped()
            self._stopped_until = time.monotonic() + STOPPED_FOR_S
        stopped = self._stopped & {key.strategy_id for key in chunk.jobs}
        if chunk.attempt or not stopped:
            return frozenset()
        return stopped - self._load_tried(chunk.dispatch_id)

    def _record(self, work: Sequence[_Work]) -> list[Landed]:
        """Land what ran, in one transaction, and send what should be tried again."""
        if not work:
            return []
        decisions = self._land_all([each.landing for each in work], self._worker)
        retries = [self._retry(each) for each in work if each.landing.attempts]
        if retries:
            self._publish(retries)
        landed = [Landed(each.landing, decisions.get(each.chunk.dispatch_id)) for each in work]
        for each, result in zip(work, landed, strict=True):
            self._tell(each.chunk, each.runtimes, each.landing)
            _log(each.chunk, result)
        return landed

    def _run(self, chunk: Chunk) -> _Work:
        runtimes = self._runtimes.runtimes(chunk.jobs, chunk.catalogue_version)
        if is_expired(chunk, time.time()):
            return _work(chunk, runtimes, [expire(chunk)] * len(chunk.jobs))
        self._begin(chunk, runtimes)
        window, stopped = self._windows.window(chunk), self._stopped_now(chunk)
        return _work(chunk, runtimes, run_jobs(chunk, runtimes, window, stopped, self._enter, self._is_revoked))

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


def waited_ms(chunk: Chunk) -> float:
    """Return milliseconds since the chunk's dispatch, 0 if the clocks disagree."""
    return max(0.0, (time.time() - chunk.created_at.timestamp()) * 1000)


def is_expired(chunk: Chunk, now: float) -> bool:
    """Tell whether a chunk is out of date.

    Args:
        chunk: what was delivered.
        now: epoch seconds.
    """
    return now > chunk.expires_at.timestamp()


def expire(chunk: Chunk) -> Ran:
    """Return the end of a job that is out of date: it is not executed."""
    waited = waited_ms(chunk)
    error = JobExpiredError(
        f"expected to start by {chunk.expires_at.isoformat()}, was delivered {waited:.0f} ms after dispatch"
    )
    return Ran(OutcomeStatus.EXPIRED, waited, 0.0, error=error)


def _work(chunk: Chunk, runtimes: Sequence[Runtime], ran: Sequence[Ran], crashed: Sequence[int] = ()) -> _Work:
    outcomes, attempts = sort_out(chunk, runtimes, ran)
    return _Work(chunk, runtimes, Landing(chunk.dispatch_id, outcomes, attempts, crashed))


def run_jobs(
    chunk: Chunk,
    runtimes: Sequence[Runtime],
    bars: Bars,
    stopped: frozenset[int] = frozenset(),
    enter: Enter = lambda *_: None,
    is_revoked: IsRevoked = lambda *_: False,
) -> list[Ran]:
    """Run the jobs one after another on the same window; indicators are computed once for all of them.

    Args:
        chunk: the jobs.
        runtimes: of the jobs, in order.
        bars: the window.
        stopped: strategies whose jobs are skipped.
        enter: told before each job whose code runs now, and in the end that nobody's does.
        is_revoked: asked about each job at the last moment.
    """
    cache = IndicatorCache(bars)
    memory = MemoryLimit()
    created_at = chunk.created_at.timestamp()
    ran = []
    with clock.running(), memory.guarding():
        for key, runtime in zip(chunk.jobs, runtimes, strict=True):
            enter(key.strategy_id, runtime.limits.timeout_ms)
            if is_revoked(chunk.dispatch_id, key.strategy_id):
                ran.append(cancel(created_at))
            elif key.strategy_id in stopped:
                ran.append(skip(created_at))
            else:
                ran.append(run_job(runtime, bars, cache, created_at, memory))
            if ran[-1].processing_ms > LARGER_AFTER_MS:
                memory.forget()
        enter(0, 0)
    return ran


def skip(created_at: float) -> Ran:
    """Return the end of a job whose strategy's breaker opened while it was on its way.

    Args:
        created_at: when its dispatch was written, epoch seconds.
    """
    error = BreakerOpenError("not executed: the strategy's breaker opened while the job was on its way")
    return Ran(OutcomeStatus.SKIPPED, max(0.0, (time.time() - created_at) * 1000), 0.0, error=error)


def cancel(created_at: float) -> Ran:
    """Return the end of a job that an operator took back.

    Args:
        created_at: when its dispatch was written, epoch seconds.
    """
    error = Cancelled("taken back by an operator")
    return Ran(OutcomeStatus.CANCELLED, max(0.0, (time.time() - created_at) * 1000), 0.0, error=error)


def run_job(runtime: Runtime, bars: Bars, cache: IndicatorCache, created_at: float, memory: MemoryLimit) -> Ran:
    """Run one job within its limits of time and memory; whatever it raises becomes its result.

    Args:
        runtime: the strategy, or why there is none.
        bars: its window.
        cache: indicators of the window, shared with its neighbours.
        created_at: when its dispatch was written, epoch seconds.
        memory: of this slot.
    """
    queued_ms = max(0.0, (time.time() - created_at) * 1000)
    if runtime.strategy is None:
        return Ran(OutcomeStatus.FAILED, queued_ms, 0.0, error=runtime.refusal)
    memory.allow(runtime.limits.memory_mb)
    started = clock.begin(runtime.limits.timeout_ms)
    try:
        signal = evaluate(runtime.strategy, bars, cache)
    except JobTimeoutError:
        took = (time.perf_counter() - started) * 1000
        error = TimeoutError(
            f"expected an answer within {runtime.limits.timeout_ms} ms, stopped it after {took:.0f} ms"
        )
        return Ran(OutcomeStatus.TIMED_OUT, queued_ms, took, error=error)
    except BaseException as error:  # user code may raise anything: MemoryError, sys.exit(), even KeyboardInterrupt
        took = (time.perf_counter() - started) * 1000
        return Ran(OutcomeStatus.FAILED, queued_ms, took, error=memory.explain(error))
    finally:
        clock.end()
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
    return Outcome(
        key.strategy_id,
        key.revision,
        ran.status,
        ran.signal,
        _class_name(ran.error),
        _text(ran.error),
        chunk.attempt,
        ran.queued_ms,
        ran.processing_ms,
    )


def _attempt(chunk: Chunk, key: JobKey, ran: Ran) -> Attempt:
    return Attempt(
        strategy_id=key.strategy_id,
        attempt=chunk.attempt,
        status=ran.status,
        error_class=_class_name(ran.error) or "",
        error=_text(ran.error) or "",
        processing_ms=ran.processing_ms,
        queued_ms=ran.queued_ms,
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
