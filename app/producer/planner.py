"""The planner: how the jobs of a dispatch will travel, from what is known of their strategies' costs and limits.

It knows nothing of Postgres and queues: it is told samples, the number of slots and how many jobs went out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.domain.costs import CostBook, Sample
from app.domain.jobs import JobKey
from app.domain.strategies import Priority, RegisteredStrategy
from app.producer.chunking import Budget, Candidate, PlannedJobs, plan_chunks, split_evenly
from app.producer.throttling import Throttle, judge
from app.settings import DispatchSettings

#: Longest list of strategy names shown in Flower, characters.
NAMES_SHOWN = 400

#: Share of a chunk's budget that a job may take and still share the chunk.
CHEAP_SHARE = 0.5

#: Cost of a job about which nothing is known, ms: what matters is that it is not nothing.
ASSUMED_MS = 0.1

#: Seconds after which what a strategy asked for counts half in the rate of its jobs.
RATE_MEMORY_S = 30.0


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """One chunk of every candle of a series: everything about it but the candle."""

    priority: Priority
    jobs: tuple[JobKey, ...]
    names: str
    """The strategies' names, for people."""
    label: str | None
    """The task's name in Flower when the job travels alone; None leaves the task's own."""
    timeout_s: float
    """Longest soft limit of the jobs, seconds. A chunk whose slot is killed is split, so a chunk of many slow jobs
    lands all the same, and one job that hangs does not hold up the others for the sum of all limits."""
    cost_ms: float = 0.0
    """Estimated time of the jobs together."""
    reason: str = ""
    """Why these and no others."""
    is_alone: bool = False
    """Whether it must not share a message with other chunks."""
    spacing_s: float = 0.0
    """From one chunk's start to the next one's; 0 for a strategy that is not throttled."""

    @property
    def strategies(self) -> list[int]:
        """Whose jobs they are."""
        return [key.strategy_id for key in self.jobs]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The chunks of every candle of some series, urgent ones first."""

    chunks: tuple[PlannedChunk, ...]
    digest: str
    """Names it: the same for plans with the same chunks for the same reasons, whatever their estimates."""

    @classmethod
    def build(cls, chunks: tuple[PlannedChunk, ...]) -> Plan:
        """Build a plan of its chunks."""
        telling = [[chunk.priority.value, chunk.strategies, chunk.reason] for chunk in chunks]
        return cls(chunks, hashlib.sha256(json.dumps(telling).encode()).hexdigest())

    def described(self) -> list[dict[str, object]]:
        """Return the chunks as plain JSON, for storage."""
        return [
            {
                "priority": chunk.priority.value,
                "strategies": chunk.strategies,
                "reason": chunk.reason,
                "estimated_ms": round(chunk.cost_ms, 3),
            }
            for chunk in self.chunks
        ]


class Planner:
    """Plans chunks; what it knows changes with `learn`, and so do its plans.

    Args:
        settings: how jobs may share chunks.
    """

    def __init__(self, settings: DispatchSettings) -> None:
        self._settings = settings
        self._book = CostBook()
        self._slots = 1
        self._throttled: dict[int, Throttle] = {}
        self._asked: Counter[int] = Counter()
        self._rates: dict[int, float] = {}
        self._in_use: set[int] = set()
        self._has_new = settings.chunking and settings.trusted_after > 0

    @property
    def slots(self) -> int:
        """Slots of the fleet as far as is known, at least 1."""
        return self._slots

    @property
    def has_new(self) -> bool:
        """Whether some strategy that is asked is new; when nobody was asked yet, that is assumed."""
        return self._has_new

    @property
    def throttled(self) -> Mapping[int, Throttle]:
        """What is held against strategies, by id."""
        return self._throttled

    def count(self, strategy_ids: Collection[int], dispatches: int) -> None:
        """Note that so many dispatches asked these strategies."""
        for number in strategy_ids:
            self._asked[number] += dispatches
        self._in_use.update(strategy_ids)

    def learn(
        self, samples: Iterable[Sample], slots: int, elapsed_s: float, strategies: Sequence[RegisteredStrategy]
    ) -> None:
        """Take over what was seen.

        Args:
            samples: recent jobs.
            slots: of the fleet; 0 when no node is alive.
            elapsed_s: time since the last call.
            strategies: those that are active.
        """
        self._book.note(samples)
        self._slots = max(1, slots)
        share = 1 - 0.5 ** (elapsed_s / RATE_MEMORY_S)
        for number in self._asked.keys() | self._rates.keys():
            known = self._rates.get(number, 0.0)
            self._rates[number] = known + share * (self._asked[number] / elapsed_s - known)
        self._asked.clear()
        asked = [each for each in strategies if each.id in self._in_use]
        if asked:
            self._has_new = self._settings.chunking and any(map(self._is_new, asked))
        judged = {each.id: self._judge(each) for each in strategies}
        self._throttled = {number: throttle for number, throttle in judged.items() if throttle is not None}

    def fingerprint(self, strategies: Iterable[RegisteredStrategy]) -> object:
        """Return what the plan of these strategies depends on: equal fingerprints give equal plans."""
        return self._slots, tuple((self._candidate(each, ()), self._throttled.get(each.id)) for each in strategies)

    def plan(self, strategies: Sequence[RegisteredStrategy], half_open: Collection[int] = ()) -> Plan:
        """Plan the chunks of some strategies, urgent ones first.

        Args:
            strategies: asked about one candle, ascending by id.
            half_open: those whose breaker lets one job through, to find out.
        """
        chunks = (chunk for priority in Priority for chunk in self._plan_lane(priority, strategies, half_open))
        return Plan.build(tuple(chunks))

    def _plan_lane(
        self, priority: Priority, strategies: Sequence[RegisteredStrategy], half_open: Collection[int]
    ) -> list[PlannedChunk]:
        lane = {JobKey(s.id, s.revision): s for s in strategies if self._priority(s) is priority}
        candidates = [self._candidate(each, half_open) for each in lane.values()]
        planned = plan_chunks(candidates, self._budget())
        return [self._describe(priority, jobs, [lane[key] for key in jobs.keys]) for jobs in planned]

    def _priority(self, strategy: RegisteredStrategy) -> Priority:
        # one that takes too much waits behind everybody who does not
        return Priority.LOW if strategy.id in self._throttled else strategy.definition.priority

    def _budget(self) -> Budget:
        return Budget(self._settings.chunk_budget_ms, self._settings.jobs_in_chunk, self._slots)

    def _candidate(self, strategy: RegisteredStrategy, half_open: Collection[int]) -> Candidate:
        cost = self._book.of(strategy.id, strategy.revision)
        cost_ms = ASSUMED_MS if cost is None else cost.told_ms
        cheap_ms = CHEAP_SHARE * self._settings.chunk_budget_ms
        key, reason = JobKey(strategy.id, strategy.revision), self._why_alone(strategy, half_open)
        if reason is None and cost_ms > cheap_ms:
            return Candidate(key, cost_ms, f"slow: takes more than {cheap_ms:g} ms", is_slow=True)
        return Candidate(key, cost_ms, reason)

    def _why_alone(self, strategy: RegisteredStrategy, half_open: Collection[int]) -> str | None:
        cost = self._book.of(strategy.id, strategy.revision)
        if not self._settings.chunking:
            return "chunking is off"
        if strategy.id in half_open:
            return "its breaker is half open: this job finds out"
        if strategy.id in self._throttled:
            return f"throttled: {self._throttled[strategy.id].reason}"
        if self._is_new(strategy):
            return f"new: fewer than {self._settings.trusted_after} jobs of this revision are known"
        if cost is not None and cost.is_failing:
            return "failing: too many of its recent jobs failed"
        return None

    def _is_new(self, strategy: RegisteredStrategy) -> bool:
        cost = self._book.of(strategy.id, strategy.revision)
        return (0 if cost is None else cost.jobs) < self._settings.trusted_after

    def _judge(self, strategy: RegisteredStrategy) -> Throttle | None:
        cost = self._book.of(strategy.id, strategy.revision)
        return judge(cost, strategy.definition.limits, self._rates.get(strategy.id, 0.0), self._slots)

    def _describe(self, priority: Priority, jobs: PlannedJobs, members: list[RegisteredStrategy]) -> PlannedChunk:
        throttle = self._throttled.get(members[0].id) if len(members) == 1 else None
        return describe(priority, jobs, members, 0.0 if throttle is None else throttle.spacing_s)


def plan_evenly(strategies: Sequence[RegisteredStrategy], most: int) -> tuple[PlannedChunk, ...]:
    """Plan chunks of some strategies, urgent ones first, by number and whatever they cost.

    Args:
        strategies: asked about one candle.
        most: most jobs in one chunk, at least 1.
    """
    planned: list[PlannedChunk] = []
    for priority in Priority:
        lane = {JobKey(s.id, s.revision): s for s in strategies if s.definition.priority is priority}
        pieces = (PlannedJobs(keys, 0.0, "by number") for keys in split_evenly(list(lane), most))
        planned += [describe(priority, jobs, [lane[key] for key in jobs.keys]) for jobs in pieces]
    return tuple(planned)


def describe(
    priority: Priority, jobs: PlannedJobs, members: Sequence[RegisteredStrategy], spacing_s: float = 0.0
) -> PlannedChunk:
    """Build a planned chunk.

    Args:
        priority: of the chunk.
        jobs: in the chunk.
        members: their strategies.
        spacing_s: from one such chunk's start to the next one's.
    """
    names = ", ".join(s.definition.name for s in members)
    return PlannedChunk(
        priority=priority,
        jobs=jobs.keys,
        names=names if len(names) <= NAMES_SHOWN else names[: NAMES_SHOWN - 1] + "…",
        label=names if len(members) == 1 else None,
        timeout_s=max(s.definition.limits.timeout_ms for s in members) / 1000,
        cost_ms=jobs.cost_ms,
        reason=jobs.reason,
        is_alone=jobs.is_alone,
        spacing_s=spacing_s,
    )
