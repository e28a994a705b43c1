"""Running the jobs of a chunk: one after another on one window, each within its limits, whatever it does.

Every job is isolated: what one raises, however it ends, changes nothing for its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.domain.jobs import Chunk, JobKey, Outcome, OutcomeStatus, Signal
from app.errors import JobExpiredError, JobTimeoutError, PermanentError
from app.storage.landing import Attempt
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.indicators import IndicatorCache
from workers.runtime.limits import clock
from workers.runtime.memory import LARGER_AFTER_MS, MemoryLimit
from workers.runtime.strategies import Runtime
from workers.runtime.surroundings import Surroundings, kept

#: A job that took longer, milliseconds, ends its turn: what ran with it is recorded before the next one runs.
LONG_MS = 50.0

#: Longest error text kept in a row, characters.
ERROR_TEXT_LIMIT = 2000

#: Notes which strategy's code runs now and its soft limit in milliseconds; 0 for none.
Enter = Callable[[int, int], None]

#: Tells whether a job, by dispatch and strategy, was taken back.
IsRevoked = Callable[[int, int], bool]


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


def run_jobs(
    chunk: Chunk,
    runtimes: Sequence[Runtime],
    bars: Bars,
    stopped: frozenset[int] = frozenset(),
    enter: Enter = lambda *_: None,
    is_revoked: IsRevoked = lambda *_: False,
    *,
    first: int = 0,
) -> list[Ran]:
    """Run the jobs one after another on the same window; indicators are computed once for all of them.

    Ends early, with the results so far, after a job that took longer than LONG_MS.

    Args:
        chunk: the jobs.
        runtimes: of the jobs, in order.
        bars: the window.
        stopped: strategies whose jobs are skipped.
        enter: told before each job whose code runs now, and in the end that nobody's does.
        is_revoked: asked about each job at the last moment.
        first: place of the job to begin with.
    """
    cache = IndicatorCache(bars)
    memory = MemoryLimit()
    created_at = chunk.created_at.timestamp()
    ran = []
    with kept() as surroundings, clock.running(), memory.guarding():
        for key, runtime in zip(chunk.jobs[first:], runtimes[first:], strict=True):
            enter(key.strategy_id, runtime.limits.timeout_ms)
            if is_revoked(chunk.dispatch_id, key.strategy_id):
                ran.append(cancel(created_at))
            elif key.strategy_id in stopped:
                ran.append(skip(created_at))
            else:
                ran.append(run_job(runtime, bars, cache, created_at, memory, surroundings))
            if ran[-1].processing_ms > LARGER_AFTER_MS:
                memory.forget()
                if ran[-1].processing_ms > LONG_MS:
                    break
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


def run_job(
    runtime: Runtime,
    bars: Bars,
    cache: IndicatorCache,
    created_at: float,
    memory: MemoryLimit,
    surroundings: Surroundings,
) -> Ran:
    """Run one job within its limits of time and memory; whatever it raises becomes its result.

    Args:
        runtime: the strategy, or why there is none.
        bars: its window.
        cache: indicators of the window, shared with its neighbours.
        created_at: when its dispatch was written, epoch seconds.
        memory: of this slot.
        surroundings: of this process, which the job is to leave as they are.
    """
    queued_ms = max(0.0, (time.time() - created_at) * 1000)
    if runtime.strategy is None:
        return Ran(OutcomeStatus.FAILED, queued_ms, 0.0, error=runtime.refusal)
    memory.allow(runtime.limits.memory_mb)
    started = clock.begin(runtime.limits.timeout_ms)
    try:
        signal = surroundings.run(evaluate, runtime.strategy, bars, cache)
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


def sort_out(
    chunk: Chunk, runtimes: Sequence[Runtime], ran: Sequence[Ran], first: int = 0
) -> tuple[list[Outcome], list[Attempt]]:
    """Tell ends of jobs from attempts that will be followed by another.

    Args:
        chunk: the jobs.
        runtimes: of the jobs, in order.
        ran: how some of them went.
        first: place of the first of these.
    """
    outcomes, attempts = [], []
    for key, runtime, result in zip(chunk.jobs[first:], runtimes[first:], ran, strict=False):
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
        None if ran.error is None else error_text(ran.error),
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
        error="" if ran.error is None else error_text(ran.error),
        processing_ms=ran.processing_ms,
        queued_ms=ran.queued_ms,
    )


def _class_name(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__


def error_text(error: BaseException) -> str:
    """Return the message of an error of user code, as Postgres takes it; of one without a message, its class."""
    # Postgres text holds no NUL and no half characters; a strategy's message may, and may raise while it is built
    try:
        text = str(error) or f"{type(error).__name__} without a message"
        return text.replace("\x00", "�").encode(errors="replace").decode()[:ERROR_TEXT_LIMIT]
    except Exception as broken:
        return f"(its message cannot be shown: {type(broken).__name__})"
