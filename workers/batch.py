"""Tickets of batch runs: a slot claims units, executes them and records what they leave behind.

A ticket is worked on for about a second; when there is more, it is sent again, so that a slot looks at its queues
between two stints. What a slot had claimed when it died is claimable at once (`app.storage.units`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import structlog
from psycopg import DataError
from sqlalchemy.exc import DataError as SqlDataError

from app.domain.advancing import Cells
from app.domain.runs import RunKind, RunState, UnitState
from app.errors import ConfigurationError, JobTimeoutError, MessageError, PermanentError, StorageUnavailableError
from app.runs.evaluating import evaluate_span
from app.runs.metrics import compute
from app.runs.spans import Span
from app.runs.trading import Traded, trade
from app.storage.units import (
    Claimed,
    Results,
    Stint,
    StoredRun,
    UnitEnd,
    adopt_unit,
    claim_units,
    give_back_ticket,
    load_run,
    record,
    take_ticket,
)
from workers.evaluation import Evaluating
from workers.running import ERROR_TEXT_LIMIT, error_text
from workers.runtime.limits import clock
from workers.runtime.memory import MemoryLimit, held_mb, keep_freed_blocks
from workers.runtime.spans import SpanCache, VariantCache
from workers.runtime.surroundings import kept
from workers.stints import STINT_S, Lookout, StoppedError, Within

log = structlog.get_logger()

#: Seconds of results that are kept before they are recorded: a transaction for each would cost as much as a small unit
#: does, and a large one would hold up the commits of live jobs, which wait for all that was written before them.
RECORD_EVERY_S = 0.05

#: Units claimed by a stint that does not know yet how long they take: each may be a minute that others could share.
FIRST_CLAIM = 1


#: What Postgres, or what writes its binary form, says of values that a column does not hold.
_UNSTORABLE = (DataError, SqlDataError, ValueError, OverflowError)


class BatchWorker:
    """Works on tickets, in one slot.

    Args:
        within: does something on the slot's connection.
        spans: the candles of units.
        variants: their strategies.
        worker: name of the slot.
        count: told how many units were recorded as ended, and how many of them failed.
    """

    def __init__(
        self, within: Within, spans: SpanCache, variants: VariantCache, worker: str, count: Callable[[int, int], None]
    ) -> None:
        self._within = within
        self._spans = spans
        self._variants = variants
        self._worker = worker
        self._count = count

    def work(self, run_id: int, ticket: int) -> StoredRun | None:
        """Work on a ticket for about a second; return its run if there is more to do.

        Raises:
            StorageUnavailableError: Postgres is away; what was not recorded is executed again.
            MessageError: there is no such run.
        """
        keep_freed_blocks()
        run = self._within(lambda driver: load_run(driver, run_id))
        if run is None:
            raise MessageError(f"no run {run_id}")
        stint = Stint(run_id, ticket, random.getrandbits(62), self._worker)
        if run.state is not RunState.RUNNING or not self._within(lambda driver: take_ticket(driver, stint)):
            return None
        with self._giving_back(stint):
            has_more = self._stint_of(run, stint).run()
        return run if has_more else None

    def _stint_of(self, run: StoredRun, stint: Stint) -> _Work | Evaluating:
        if run.kind is RunKind.EVALUATE:
            return Evaluating(self._within, self._variants, run, stint, self._count)
        return _Work(self._within, self._spans, self._variants, run, stint, self._count)

    @contextmanager
    def _giving_back(self, stint: Stint) -> Iterator[None]:
        try:
            yield
        except StorageUnavailableError:  # the connection is gone, and the ticket's lock with it
            raise
        except BaseException:
            self._within(lambda driver: give_back_ticket(driver, stint))
            raise
        self._within(lambda driver: give_back_ticket(driver, stint))


class _Work:
    """One stint of work on a run."""

    def __init__(
        self,
        within: Within,
        spans: SpanCache,
        variants: VariantCache,
        run: StoredRun,
        stint: Stint,
        count: Callable[[int, int], None],
    ) -> None:
        self._within = within
        self._spans = spans
        self._variants = variants
        self._run = run
        self._stint = stint
        self._count = count
        self._memory = MemoryLimit()
        self._ends: list[UnitEnd] = []
        self._executed = 0
        self._lookout = Lookout(within, run.id)
        self._began_at = self._recorded_at = time.perf_counter()

    def run(self) -> bool:
        """Execute units until the time is up; return whether there may be more."""
        try:
            while self._left_s() > 0:
                claimed = self._claim()
                if not claimed:
                    return False
                self._execute_all(claimed)
        except StoppedError:
            return False
        finally:
            self._record()
        return True

    def _left_s(self) -> float:
        return STINT_S - (time.perf_counter() - self._began_at)

    def _claim(self) -> list[Claimed]:
        if any(end.state is UnitState.PENDING for end in self._ends):
            self._record()  # what is to be tried again can be claimed again
        most = min(self._run.limits.batch_size, self._expected())
        return self._within(lambda driver: claim_units(driver, self._stint, most)) or self._adopt()

    def _expected(self) -> int:
        """Return how many units may be executed in the time that is left."""
        if not self._executed:
            return FIRST_CLAIM
        each_s = (STINT_S - self._left_s()) / self._executed
        return max(1, int(self._left_s() / each_s))

    def _adopt(self) -> list[Claimed]:
        """Claim a unit of a slot that is gone; one that has had its attempts ends here."""
        self._record()  # it may take this slot along, too
        most = self._run.limits.retries + 1
        while True:
            adopted = self._within(lambda driver: adopt_unit(driver, self._stint))
            if adopted is None or adopted.attempt <= most:
                return [adopted] if adopted else []
            text = f"its slot died at every attempt, {most} in all, with nothing else in it"
            number = adopted.unit.number
            self._ends.append(UnitEnd(number, UnitState.FAILED, most, error_class="SlotDiedError", error=text))
            self._record()

    def _execute_all(self, claimed: list[Claimed]) -> None:
        for each in claimed:
            self._lookout.look()
            self._ends.append(self._execute(each))
            self._executed += 1
            if time.perf_counter() - self._recorded_at > RECORD_EVERY_S:
                began = time.perf_counter()
                self._record()
                self._lookout.rest(time.perf_counter() - began)
            if self._left_s() <= 0:
                return

    def _execute(self, claimed: Claimed) -> UnitEnd:
        started, cpu = time.perf_counter(), time.process_time()
        number, attempt = claimed.unit.number, claimed.attempt
        try:
            results = self._evaluate(claimed)
        except (StorageUnavailableError, StoppedError):
            raise
        except BaseException as raised:  # user code may raise anything
            error = self._memory.explain(raised)
            text = _text(error, self._run, claimed)
            return UnitEnd(number, self._after(error, attempt), attempt, **_took(started, cpu), **text)
        return UnitEnd(number, UnitState.SUCCEEDED, attempt, **_took(started, cpu), results=results)

    def _after(self, error: BaseException, attempt: int) -> UnitState:
        """Return what a unit is after an attempt that failed: trying again may give the same answer."""
        is_last = isinstance(error, PermanentError | ConfigurationError) or attempt > self._run.limits.retries
        return UnitState.FAILED if is_last else UnitState.PENDING

    def _evaluate(self, claimed: Claimed) -> Results:
        unit, run = claimed.unit, self._run
        variant, strategy = self._variants.find(run.id, unit.variant)
        span = self._spans.span(run, unit.symbol)
        watch = _Watch(run.limits.unit_timeout_ms(unit.candles), self._lookout.look)
        with kept() as surroundings, clock.running(), self._memory.guarding():
            self._memory.allow(run.limits.memory_mb)
            try:
                cells = surroundings.run(evaluate_span, strategy, span, run.method, watch.look)
            finally:
                clock.end()
        return _results(span, cells, trade(span, cells, variant.trading))

    def _record(self) -> None:
        ends, self._ends = self._ends, []
        if ends:
            try:
                self._save(ends)
            except _UNSTORABLE:
                for end in ends:
                    self._record_alone(end)
        self._recorded_at = time.perf_counter()

    def _record_alone(self, end: UnitEnd) -> None:
        """Record one unit; one whose results no database takes has failed."""
        try:
            self._save([end])
        except _UNSTORABLE as error:
            text = f"its results cannot be stored: {error_text(error)}"[:ERROR_TEXT_LIMIT]
            failed = UnitEnd(end.number, UnitState.FAILED, end.attempt, error_class=type(error).__name__, error=text)
            self._save([failed])

    def _save(self, ends: list[UnitEnd]) -> None:
        self._within(lambda driver: record(driver, self._stint, ends))
        states = [end.state for end in ends if end.state is not UnitState.PENDING]
        self._count(len(states), states.count(UnitState.FAILED))


class _Watch:
    """The soft limit of a unit, and the looks that are taken while it runs: both use the one timer of the process."""

    def __init__(self, timeout_ms: float, look: Callable[[], None]) -> None:
        self._ends_at = time.perf_counter() + timeout_ms / 1000
        self._look = look

    def look(self) -> None:
        """Look between two parts of a unit.

        Raises:
            JobTimeoutError: the unit has had its time.
            StoppedError: its run does not run any more.
        """
        clock.end()
        self._look()
        left_ms = (self._ends_at - time.perf_counter()) * 1000
        if left_ms <= 0:
            raise JobTimeoutError
        clock.begin(left_ms)


def _results(span: Span, cells: Cells, traded: Traded) -> Results:
    metrics = compute(traded.curve, traded.trades, span.bars.timeframe).model_dump(mode="json")
    changed = np.flatnonzero(np.diff(cells.action, prepend=cells.action[0] + 2))
    opened_ms = span.bars.open_time[span.first :][changed]
    return Results(metrics, traded.trades, traded.curve, opened_ms, cells.action[changed], cells.strength[changed])


def _took(started: float, cpu: float) -> dict[str, Any]:
    return {
        "elapsed_ms": (time.perf_counter() - started) * 1000,
        "cpu_ms": (time.process_time() - cpu) * 1000,
        "memory_mb": held_mb(),
    }


def _text(error: BaseException, run: StoredRun, claimed: Claimed) -> dict[str, Any]:
    if isinstance(error, JobTimeoutError):
        candles, limit_ms = claimed.unit.candles, run.limits.unit_timeout_ms(claimed.unit.candles)
        text = f"expected {candles:,} candles within {limit_ms:,} ms: raise limits.timeout_ms of the run"
        return {"error_class": TimeoutError.__name__, "error": text}
    return {"error_class": type(error).__name__, "error": error_text(error)}
