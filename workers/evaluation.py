"""Evaluate runs in a slot: slices of markets are claimed, their windows loaded at once, every strategy asked.

The strategies see what they see live, the newest candles of one market, through the same function. What is shared is
the way to and from Postgres: one query for the candles of some hundred markets, one COPY for their answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from app.domain.runs import Slice
from app.errors import ConfigurationError, JobTimeoutError, PermanentError, StorageUnavailableError
from app.runs.answers import ANSWER, Answers, Cell, UnitStatus, build_cell, build_empty_cell
from app.storage.latest import load_windows
from app.storage.slices import (
    ClaimedSlice,
    SliceEnd,
    UnitFailure,
    adopt_slice,
    claim_slices,
    record_slices,
    split_slice,
)
from app.storage.units import Stint, StoredRun
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.indicators import IndicatorCache
from app.strategies.sdk import Strategy
from workers.running import error_text
from workers.runtime.limits import clock
from workers.runtime.memory import MemoryLimit, held_mb
from workers.runtime.spans import VariantCache
from workers.runtime.surroundings import Surroundings, kept
from workers.runtime.windows import to_ms
from workers.stints import STINT_S, Lookout, StoppedError, Within

#: Slices claimed by a stint that does not know yet how long they take.
FIRST_CLAIM = 1

#: Most slices claimed at once, and seconds of work that a claim is for: what a dead slot loses, and what is held in
#: memory until it is recorded.
MOST_CLAIMED, CLAIM_S = 8, 0.2


STALE = build_empty_cell(UnitStatus.STALE)
FAILED = build_empty_cell(UnitStatus.FAILED)


#: Errors after which a unit is not tried again: it would give the same answer, or take as long.
_FINAL = (PermanentError, ConfigurationError, JobTimeoutError)


class Evaluating:
    """One stint of work on an evaluate run."""

    def __init__(
        self,
        within: Within,
        variants: VariantCache,
        run: StoredRun,
        stint: Stint,
        count: Callable[[int, int], None],
    ) -> None:
        self._within = within
        self._variants = variants
        self._run = run
        self._stint = stint
        self._count = count
        self._lookout = Lookout(within, run.id)
        self._done = 0
        self._began_at = time.perf_counter()

    def run(self) -> bool:
        """Evaluate slices until the time is up; return whether there may be more."""
        try:
            while not self._is_over():
                claimed = self._claim() or self._adopt()
                if not claimed:
                    return False
                self._evaluate_all(claimed)
        except StoppedError:
            return False
        return True

    def _is_over(self) -> bool:
        return self._spent_s() > STINT_S

    def _spent_s(self) -> float:
        return time.perf_counter() - self._began_at

    def _claim(self) -> list[ClaimedSlice]:
        most = int(CLAIM_S * self._done / self._spent_s()) if self._done else FIRST_CLAIM
        return self._within(lambda driver: claim_slices(driver, self._stint.values, max(1, min(most, MOST_CLAIMED))))

    def _adopt(self) -> list[ClaimedSlice]:
        """Claim a slice of a slot that is gone: cut into units if it has several, failed if it has had its tries."""
        while True:
            adopted = self._within(lambda driver: adopt_slice(driver, self._stint.values))
            if adopted is None:
                return []
            if len(adopted.slice.symbols) * len(adopted.slice.variants) > 1:
                self._split(adopted.slice.number)
                return self._claim()
            if adopted.attempt <= self._run.limits.retries + 1:
                return [adopted]
            self._record([self._give_up(adopted)])

    def _split(self, number: int) -> None:
        self._within(lambda driver: split_slice(driver, self._stint.values, number))

    def _give_up(self, adopted: ClaimedSlice) -> SliceEnd:
        tries = self._run.limits.retries + 1
        unit = adopted.slice.first_market * self._run.variants + adopted.slice.variants[0]
        failure = UnitFailure(unit, tries, "SlotDiedError", f"its slot died {tries} times while it ran alone")
        answers = np.array([FAILED], ANSWER)
        return SliceEnd(adopted.slice, tries, [answers], [failure], 0.0, 0.0)

    def _evaluate_all(self, claimed: Sequence[ClaimedSlice]) -> None:
        symbols = [symbol for each in claimed for symbol in each.slice.symbols]
        run = self._run
        began = time.perf_counter()
        windows = iter(
            self._within(lambda driver: load_windows(driver, symbols, run.timeframe, run.to_time, run.window))
        )
        loading_ms = 1000 * (time.perf_counter() - began) / len(claimed)
        ends = []
        for each in claimed:
            ends.append(self._evaluate(each, windows, loading_ms))
            if self._is_over():
                break  # what is left over is given back with the ticket
        self._record(ends)
        self._done += len(ends)

    def _record(self, ends: Sequence[SliceEnd]) -> None:
        self._within(lambda driver: record_slices(driver, self._stint.values, ends, held_mb()))
        self._count(sum(end.markets * len(end.answers) for end in ends), sum(len(end.failures) for end in ends))

    def _evaluate(self, claimed: ClaimedSlice, windows: Iterator[Bars | None], loading_ms: float) -> SliceEnd:
        """Evaluate a slice, or the first of its markets: the time is up, the others are left to another claim.

        Its time includes its part of loading windows, `loading_ms`.
        """
        began, cpu = time.perf_counter(), time.process_time()
        strategies = [self._find(number) for number in claimed.slice.variants]
        memory = MemoryLimit()
        with kept() as surroundings, clock.running(), memory.guarding():
            work = _SliceWork(claimed.slice, self._run, strategies, surroundings, memory)
            for _ in claimed.slice.symbols:
                work.ask_all(next(windows))
                self._lookout.look()
                if self._is_over():
                    break
        took = loading_ms + 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - cpu)
        return SliceEnd(claimed.slice, claimed.attempt, *work.results(), *took)

    def _find(self, variant: int) -> Strategy | ConfigurationError:
        """Return a strategy; an error of finding it is that of each of its units."""
        try:
            return self._variants.find(self._run.id, variant)[1]
        except ConfigurationError as error:
            return error


class _SliceWork:
    """The units of one slice: each variant asked about each market."""

    def __init__(
        self,
        asked: Slice,
        run: StoredRun,
        strategies: Sequence[Strategy | ConfigurationError],
        surroundings: Surroundings,
        memory: MemoryLimit,
    ) -> None:
        self._surroundings = surroundings
        self._memory = memory
        self._slice = asked
        self._run = run
        self._strategies = strategies
        self._from_ms = to_ms(run.from_time)
        self._cells: list[list[Cell]] = [[] for _ in strategies]
        self._failures: list[UnitFailure] = []

    def results(self) -> tuple[list[Answers], list[UnitFailure]]:
        """Return the answers of each variant for the markets so far, and why some have none."""
        return [np.array(each, ANSWER) for each in self._cells], self._failures

    def ask_all(self, bars: Bars | None) -> None:
        """Ask every strategy about the next market."""
        self._memory.allow(self._run.limits.memory_mb)
        cache = IndicatorCache(bars) if bars is not None and bars.open_time[-1] >= self._from_ms else None
        for place, cells in enumerate(self._cells):
            cells.append(STALE if cache is None else self._ask(place, cache))

    def _ask(self, place: int, cache: IndicatorCache) -> Cell:
        """Return the cell of a unit; what fails is tried again at once."""
        most = self._run.limits.retries + 1
        for attempt in range(1, most + 1):
            try:
                return self._answer(self._strategies[place], cache)
            except (StorageUnavailableError, StoppedError):
                raise
            except BaseException as raised:  # user code may raise anything
                error = self._memory.explain(raised)
                if attempt == most or isinstance(error, _FINAL):
                    return self._fail(place, attempt, error)
        raise AssertionError("unreachable")

    def _answer(self, strategy: Strategy | ConfigurationError, cache: IndicatorCache) -> Cell:
        if isinstance(strategy, ConfigurationError):
            raise strategy
        bars = cache.bars
        opened_ms, price = bars.open_time.item(-1), bars.close.item(-1)
        if len(bars) < (strategy.warmups.get(bars.timeframe) or strategy.warmup):
            return build_empty_cell(UnitStatus.SHORT_HISTORY, opened_ms, price)
        clock.begin(self._run.limits.timeout_ms)
        try:
            return build_cell(self._surroundings.run(evaluate, strategy, bars, cache), opened_ms, price)
        finally:
            clock.end()

    def _fail(self, place: int, attempts: int, error: BaseException) -> Cell:
        name, text = type(error).__name__, error_text(error)
        if isinstance(error, JobTimeoutError):
            limit_ms = self._run.limits.timeout_ms
            name, text = TimeoutError.__name__, f"expected an answer within {limit_ms:,} ms: raise limits.timeout_ms"
        market = self._slice.first_market + len(self._cells[place])
        unit = market * self._run.variants + self._slice.variants[place]
        self._failures.append(UnitFailure(unit, attempts, name, text))
        return FAILED
