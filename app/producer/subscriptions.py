"""Subscriptions: which strategies a candle goes to, and how their jobs will travel.

The answer is the same for every candle of a series until the catalogue changes, so it is built once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from app.domain.candles import Timeframe
from app.domain.jobs import JobKey
from app.domain.strategies import Priority, RegisteredStrategy, StrategyStatus
from app.producer.chunking import plan_chunks
from app.storage.ledger import Expected

#: Longest list of strategy names shown in Flower, characters.
NAMES_SHOWN = 400


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


@dataclass(frozen=True, slots=True)
class Roster:
    """Who answers the candles of one series, and in which chunks."""

    expected: Expected
    chunks: tuple[PlannedChunk, ...]
    keys: dict[int, JobKey]
    """The jobs, by strategy."""


class Subscriptions:
    """The active strategies of one catalogue version, asked by symbol and timeframe."""

    def __init__(self, version: int, strategies: Sequence[RegisteredStrategy], jobs_in_chunk: int) -> None:
        self.version = version
        self._active = [s for s in strategies if s.definition.status is StrategyStatus.ACTIVE]
        self._jobs_in_chunk = jobs_in_chunk
        self._rosters: dict[tuple[str, Timeframe], Roster | None] = {}

    def match(self, symbol: str, timeframe: Timeframe) -> Roster | None:
        """Return who answers candles of this series; None when nobody asked for them."""
        key = (symbol, timeframe)
        if key not in self._rosters:
            wanted = [s for s in self._active if s.definition.subscription.matches(symbol, timeframe)]
            self._rosters[key] = self._build(sorted(wanted, key=lambda s: s.id)) if wanted else None
        return self._rosters[key]

    def _build(self, wanted: list[RegisteredStrategy]) -> Roster:
        expected = Expected.build([(s.id, s.revision, s.definition.weight) for s in wanted])
        keys = {s.id: JobKey(s.id, s.revision) for s in wanted}
        return Roster(expected, self.plan(wanted), keys)

    def plan(self, wanted: Sequence[RegisteredStrategy]) -> tuple[PlannedChunk, ...]:
        """Plan the chunks of some strategies, urgent ones first."""
        return tuple(chunk for priority in Priority for chunk in self._plan_lane(priority, wanted))

    def plan_for(self, strategy_ids: Collection[int]) -> tuple[PlannedChunk, ...]:
        """Plan the chunks of active strategies by id; for a dispatch that is not sent to all it expects."""
        return self.plan([s for s in self._active if s.id in strategy_ids])

    def _plan_lane(self, priority: Priority, wanted: Sequence[RegisteredStrategy]) -> list[PlannedChunk]:
        lane = {JobKey(s.id, s.revision): s for s in wanted if s.definition.priority is priority}
        return [
            _describe(priority, keys, [lane[key] for key in keys])
            for keys in plan_chunks(list(lane), self._jobs_in_chunk)
        ]


def _describe(priority: Priority, keys: tuple[JobKey, ...], members: list[RegisteredStrategy]) -> PlannedChunk:
    names = ", ".join(s.definition.name for s in members)
    return PlannedChunk(
        priority=priority,
        jobs=keys,
        names=names if len(names) <= NAMES_SHOWN else names[: NAMES_SHOWN - 1] + "…",
        label=names if len(members) == 1 else None,
        timeout_s=max(s.definition.limits.timeout_ms for s in members) / 1000,
    )
