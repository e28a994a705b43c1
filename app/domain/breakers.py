"""Circuit breakers: when a strategy that keeps failing is left alone for a while. A pure state machine.

closed --failures in a row--> open --its time is over, one probe goes out--> half_open
half_open --the probe succeeds--> closed;  half_open --it fails--> open, for twice as long
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from app.domain.base import UtcDatetime, Value
from app.domain.jobs import OutcomeStatus

#: Ends of a job that speak against its strategy. A job that was not executed says nothing about it.
FAILURES = frozenset({OutcomeStatus.FAILED, OutcomeStatus.TIMED_OUT, OutcomeStatus.CRASHED})

#: Ends of a job that may have been a probe and never ran.
NOT_EXECUTED = frozenset({OutcomeStatus.EXPIRED, OutcomeStatus.CANCELLED})

#: Jobs of one dispatch that must have run before a candle can be blamed: below it one bad strategy is a majority.
FEWEST_TO_BLAME_A_CANDLE = 3


class BreakerState(StrEnum):
    """Whether a strategy gets jobs."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerRules(Value):
    """When a breaker opens, and for how long."""

    failures: Annotated[int, Field(ge=1)] = 5
    """Failures in a row that open it."""
    open_for: timedelta = timedelta(seconds=60)
    """How long it stays open the first time; doubles with every trip."""
    cap: timedelta = timedelta(hours=1)
    """Longest time it stays open."""
    crashes: Annotated[int, Field(ge=1)] = 3
    """Dead slots after which a strategy is quarantined."""

    def pause(self, trips: int) -> timedelta:
        """Return how long the breaker stays open at its trip number `trips` (from 1)."""
        doubled: timedelta = self.open_for * 2 ** min(trips - 1, 30)  # 2**30 is past every cap; more would overflow
        return min(self.cap, doubled)


class Breaker(Value):
    """The breaker of one strategy."""

    strategy_id: int
    state: BreakerState = BreakerState.CLOSED
    failures: Annotated[int, Field(ge=0)] = 0
    """Failures in a row."""
    trips: Annotated[int, Field(ge=0)] = 0
    """Times it opened since it was last closed."""
    crashes: Annotated[int, Field(ge=0)] = 0
    """Slots the strategy has killed since it was last resumed."""
    open_until: UtcDatetime | None = None
    """When a probe may go out; None while closed."""

    def succeed(self) -> Breaker:
        """Return the breaker after a success: closed."""
        return Breaker(strategy_id=self.strategy_id, crashes=self.crashes)

    def fail(self, now: datetime, rules: BreakerRules) -> Breaker:
        """Return the breaker after a failure: one more, and open if that was enough or the probe failed."""
        counted = self.model_copy(update={"failures": self.failures + 1})
        if self.state is BreakerState.HALF_OPEN or counted.failures >= rules.failures:
            return counted.trip(now, rules)
        return counted

    def crash(self, now: datetime, rules: BreakerRules) -> Breaker:
        """Return the breaker after the strategy killed its slot: open at once."""
        counted = self.model_copy(update={"failures": self.failures + 1, "crashes": self.crashes + 1})
        return counted.trip(now, rules)

    def probe(self) -> Breaker:
        """Return the breaker with one job let through to find out."""
        return self.model_copy(update={"state": BreakerState.HALF_OPEN, "open_until": None})

    def retry_probe(self, now: datetime) -> Breaker:
        """Return the breaker after a probe that was not executed: another may go out now."""
        return self.model_copy(update={"state": BreakerState.OPEN, "open_until": now})

    def trip(self, now: datetime, rules: BreakerRules) -> Breaker:
        """Return the breaker opened now; one that is open already stays as it is."""
        if self.state is BreakerState.OPEN:
            return self
        trips = self.trips + 1
        opened = {"state": BreakerState.OPEN, "trips": trips, "open_until": now + rules.pause(trips)}
        return self.model_copy(update=opened)


def is_candle_to_blame(statuses: Collection[OutcomeStatus]) -> bool:
    """Tell a bad candle from bad strategies: most of what ran on it failed.

    Args:
        statuses: how the jobs of one dispatch ended.
    """
    ran = [status for status in statuses if status in FAILURES or status is OutcomeStatus.SUCCEEDED]
    failed = sum(status in FAILURES for status in ran)
    return len(ran) >= FEWEST_TO_BLAME_A_CANDLE and 2 * failed > len(ran)


def judge(
    known: Mapping[int, Breaker], ended: Iterable[tuple[int, OutcomeStatus]], now: datetime, rules: BreakerRules
) -> list[Breaker]:
    """Return the breakers that change when a dispatch is complete, in the order of `ended`.

    A crash opened its breaker already when it landed, so it is not counted again.

    Args:
        known: breakers that are not at rest, by strategy.
        ended: every job of the dispatch: its strategy and how it ended.
        now: moment of judgement.
        rules: when a breaker opens.
    """
    outcomes = list(ended)
    if is_candle_to_blame([status for _, status in outcomes]):
        return []
    changed = []
    for strategy_id, status in outcomes:
        breaker = known.get(strategy_id)
        if status is OutcomeStatus.SUCCEEDED and breaker is not None:
            changed.append(breaker.succeed())
        elif status in (OutcomeStatus.FAILED, OutcomeStatus.TIMED_OUT):
            changed.append((breaker or Breaker(strategy_id=strategy_id)).fail(now, rules))
        elif status in NOT_EXECUTED and breaker is not None and breaker.state is BreakerState.HALF_OPEN:
            changed.append(breaker.retry_probe(now))
    return [breaker for breaker in changed if breaker != known.get(breaker.strategy_id)]
