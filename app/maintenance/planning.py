"""What to do about lost jobs: send them again, or end them with a reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from app.domain.jobs import OutcomeStatus
from app.domain.strategies import Priority, RegisteredStrategy, StrategyStatus
from app.storage.unfinished import MissingJob, Unfinished


class End(NamedTuple):
    """How a lost job ends that is not sent again."""

    status: OutcomeStatus
    reason: str
    """One word, for tables."""
    text: str
    """For people."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about the lost jobs of one dispatch."""

    dispatch: Unfinished
    send: tuple[MissingJob, ...]
    ends: Mapping[End, tuple[MissingJob, ...]]

    @property
    def ended(self) -> int:
        """How many jobs end."""
        return sum(len(jobs) for jobs in self.ends.values())


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is known of the strategies now."""

    version: int
    strategies: Mapping[int, RegisteredStrategy]
    open_breakers: frozenset[int] = frozenset()

    @property
    def queues(self) -> dict[int, Priority]:
        """The queue of each strategy."""
        return {number: each.definition.priority for number, each in self.strategies.items()}


def plan(dispatch: Unfinished, lost: Sequence[MissingJob], catalogue: Catalogue, most_sends: int) -> Plan:
    """Tell the lost jobs that are sent again from those that end here.

    A paused or unloaded strategy was asked before it was stopped, so its job still goes out.

    Args:
        dispatch: whose jobs.
        lost: some of its missing jobs.
        catalogue: the strategies as they are now.
        most_sends: times a dispatch is sent before what is missing counts as lost for good.
    """
    judged = [(_end(dispatch, job, catalogue, most_sends), job) for job in lost]
    ended = sorted(((end, job) for end, job in judged if end is not None), key=lambda pair: pair[0])
    ends = {end: tuple(job for _, job in pairs) for end, pairs in groupby(ended, key=lambda pair: pair[0])}
    return Plan(dispatch, tuple(job for end, job in judged if end is None), ends)


def _end(dispatch: Unfinished, job: MissingJob, catalogue: Catalogue, most_sends: int) -> End | None:
    strategy = catalogue.strategies.get(job.strategy_id)
    if strategy is None:
        return End(OutcomeStatus.FAILED, "UnknownStrategyError", "the catalogue does not hold the strategy any more")
    if dispatch.candle is None:
        return End(OutcomeStatus.FAILED, "Lost", "not sent again: its candle is gone")
    if strategy.definition.status is StrategyStatus.QUARANTINED:
        return End(OutcomeStatus.SKIPPED, "Quarantined", "not sent again: the strategy was quarantined")
    # a job that was tried before may be under way: how it ends must be found out
    if job.strategy_id in catalogue.open_breakers and job.attempt is None:
        return End(OutcomeStatus.SKIPPED, "BreakerOpen", "not sent again: the strategy's breaker is open")
    if dispatch.sends >= most_sends:
        return End(OutcomeStatus.FAILED, "Lost", f"sent {dispatch.sends} times, and no worker ended it")
    return None
