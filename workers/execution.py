"""Chunks, from message to rows: window, runtimes, jobs, landing, retries. Reads like the design.

Every job is isolated: what one raises, however it ends, changes nothing for its neighbours.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import structlog

from app.broker import Envelope, envelope
from app.domain.decisions import Decision
from app.domain.jobs import Chunk, JobKey, Outcome, OutcomeStatus
from app.errors import SlotDiedError
from app.settings import WorkerSettings
from app.storage.landing import Attempt, Landing
from app.storage.moving import Moving
from workers.running import Enter, IsRevoked, Ran, cancel, expire, is_expired, run_jobs, sort_out, waited_ms
from workers.runtime.positions import PositionKeeper
from workers.runtime.strategies import Runtime, RuntimeCache
from workers.runtime.windows import WindowCache

log = structlog.get_logger()

#: Seconds after its dispatch within which a first delivery is taken at its word: looking up whether somebody ended
#: its jobs meanwhile costs a round trip.
FRESH_S = 5.0

#: Seconds for which a slot believes what it knows of open breakers; a slot that replaces a dead one knows nothing yet.
STOPPED_FOR_S = 1.0

#: Seconds of running after which what ran is recorded before anything else runs: a chunk is planned to take far less.
LAND_WITHIN_S = 0.05


class LandAll(Protocol):
    """Records chunks in one transaction; returns the decisions of the dispatches that are complete now, by dispatch."""

    def __call__(
        self, landings: Sequence[Landing], worker: str, moving: Moving | None = None
    ) -> Mapping[int, Decision]:
        """Record them, with the positions that follow from them."""
        ...


#: Notes that the jobs of a chunk run now; and, when they are recorded, what became of them.
Begin = Callable[[Chunk, Sequence[Runtime]], None]
Tell = Callable[[Chunk, Sequence[Runtime], Landing], None]


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
    """A chunk that ran, or a part of one, and is to be recorded."""

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
        load_ended: Callable[[Sequence[int]], Mapping[int, frozenset[int]]],
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
        positions: PositionKeeper | None = None,
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
        self._positions = positions
        self._stopped: frozenset[int] = frozenset()
        self._stopped_until = 0.0

    def execute(self, chunks: Sequence[Chunk]) -> list[Landed]:
        """Run every job of every chunk, record what happened, and send what should be tried again.

        Idempotent: what was recorded already is computed again and changes nothing.

        Args:
            chunks: they land in one transaction, unless running them takes long.

        Raises:
            StorageUnavailableError: Postgres is away; nothing is lost, execute the chunks again.
            BrokerUnavailableError: a retry could not be sent; execute the chunks again.
        """
        jobs = sum(len(chunk.jobs) for chunk in chunks)
        suspects = self._suspects() if jobs > 1 else frozenset()
        safe = (self._without(chunk, suspects) for chunk in self._still_wanted(chunks))
        landed: list[Landed] = []
        ran: list[_Work] = []
        since = time.monotonic()
        for work in chain.from_iterable(self._run(chunk) for chunk in safe if chunk is not None):
            ran.append(work)
            if time.monotonic() - since > LAND_WITHIN_S:  # neighbours of a slow job do not wait for all of it
                landed += self._record(ran)
                ran, since = [], time.monotonic()
        return landed + self._record(ran)

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

    def _still_wanted(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Return the chunks without the jobs that have ended meanwhile, by an earlier delivery or by an operator."""
        old = [chunk.dispatch_id for chunk in chunks if chunk.attempt or waited_ms(chunk) > FRESH_S * 1000]
        ended = self._load_ended(old) if old else {}
        if not ended:
            return chunks
        self._look_after([each for each in chunks if any(key.strategy_id in _of(ended, each) for key in each.jobs)])
        left = (_but(chunk, _of(ended, chunk)) for chunk in chunks)
        return [chunk for chunk in left if chunk is not None]

    def _look_after(self, chunks: Sequence[Chunk]) -> None:
        """See to the positions of jobs that have ended: the slot that recorded them may not have come to it."""
        if self._positions is not None:
            for chunk in chunks:
                self._positions.look(chunk, self._runtimes.runtimes(chunk.jobs, chunk.catalogue_version))

    def _without(self, chunk: Chunk, suspects: frozenset[int]) -> Chunk | None:
        """Send jobs that may kill the slot away, each alone; return the rest."""
        away = [key for key in chunk.jobs if key.strategy_id in suspects] if suspects else ()
        if not away:
            return chunk
        runtimes = self._runtimes.runtimes(away, chunk.catalogue_version)
        self._publish([self._alone(chunk, key, runtime) for key, runtime in zip(away, runtimes, strict=True)])
        return _but(chunk, suspects)

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
        decisions = self._land(work)
        retries = [self._retry(each) for each in work if each.landing.attempts]
        if retries:
            self._publish(retries)
        landed = [Landed(each.landing, decisions.get(each.chunk.dispatch_id)) for each in work]
        for each, result in zip(work, landed, strict=True):
            self._tell(each.chunk, each.runtimes, each.landing)
            _log(each.chunk, result)
        return landed

    def _land(self, work: Sequence[_Work]) -> Mapping[int, Decision]:
        """Record what ran, and the positions that follow from it."""
        landings = [each.landing for each in work]
        if self._positions is None:
            return self._land_all(landings, self._worker)
        return self._positions.land(work, lambda moving: self._land_all(landings, self._worker, moving))

    def _run(self, chunk: Chunk) -> Iterator[_Work]:
        """Run the jobs of a chunk: all at once, or in parts that end with a job that took long."""
        runtimes = self._runtimes.runtimes(chunk.jobs, chunk.catalogue_version)
        if is_expired(chunk, time.time()):
            yield _work(chunk, runtimes, [expire(chunk)] * len(chunk.jobs))
            return
        window, stopped, first = self._windows.window(chunk), self._stopped_now(chunk), 0
        while first < len(chunk.jobs):
            self._begin(chunk, runtimes)
            ran = run_jobs(chunk, runtimes, window, stopped, self._enter, self._is_revoked, first=first)
            yield _work(chunk, runtimes, ran, first=first)
            first += len(ran)

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


def _of(ended: Mapping[int, frozenset[int]], chunk: Chunk) -> frozenset[int]:
    return ended.get(chunk.dispatch_id, frozenset())


def _but(chunk: Chunk, strategy_ids: frozenset[int]) -> Chunk | None:
    """Return a chunk without the jobs of some strategies; None when nothing is left."""
    jobs = tuple(key for key in chunk.jobs if key.strategy_id not in strategy_ids)
    if len(jobs) == len(chunk.jobs):
        return chunk
    return chunk.model_copy(update={"jobs": jobs}) if jobs else None


def _work(
    chunk: Chunk, runtimes: Sequence[Runtime], ran: Sequence[Ran], crashed: Sequence[int] = (), first: int = 0
) -> _Work:
    outcomes, attempts = sort_out(chunk, runtimes, ran, first)
    return _Work(chunk, runtimes, Landing(chunk.dispatch_id, outcomes, attempts, crashed, chunk.expected))


def _log(chunk: Chunk, landed: Landed) -> None:
    known = {"dispatch": chunk.dispatch_id, "correlation": chunk.correlation_id}
    for outcome in landed.outcomes:
        if not outcome.succeeded:
            error = f"{outcome.error_class}: {outcome.error}"
            log.warning("job failed", strategy=outcome.strategy_id, status=outcome.status.value, error=error, **known)
    decided, again = landed.decision is not None, len(landed.attempts)
    log.debug("chunk landed", jobs=len(chunk.jobs), again=again, decided=decided, **known)
