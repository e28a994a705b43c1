"""Subscriptions: which strategies a candle goes to, and how their jobs will travel.

Who answers is the same for every candle of a series until the catalogue changes, so it is looked up once; how the jobs
travel is planned once for all series with the same strategies, and again when what the plan depends on has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from app.domain.candles import Timeframe
from app.domain.jobs import JobKey
from app.domain.strategies import RegisteredStrategy, StrategyStatus
from app.producer.planner import Plan, Planner
from app.storage.ledger import Expected


@dataclass(slots=True, eq=False)
class Roster:
    """Who answers the candles of some series, and in which chunks."""

    strategies: Sequence[RegisteredStrategy]
    """Ascending by id."""
    expected: Expected
    keys: dict[int, JobKey]
    """The jobs, by strategy."""
    fingerprint: object
    """What the plan depends on."""
    plan: Plan


class Subscriptions:
    """The active strategies of one catalogue version, asked by symbol and timeframe."""

    def __init__(self, version: int, strategies: Iterable[RegisteredStrategy], planner: Planner) -> None:
        self.version = version
        self.active = [s for s in strategies if s.definition.status is StrategyStatus.ACTIVE]
        self._planner = planner
        self._by_series: dict[tuple[str, Timeframe], Roster | None] = {}
        self._by_strategies: dict[tuple[int, ...], Roster] = {}

    def match(self, symbol: str, timeframe: Timeframe) -> Roster | None:
        """Return who answers candles of this series; None when nobody asked for them."""
        key = (symbol, timeframe)
        if key not in self._by_series:
            wanted = [s for s in self.active if s.definition.subscription.matches(symbol, timeframe)]
            self._by_series[key] = self._roster(sorted(wanted, key=lambda s: s.id)) if wanted else None
        return self._by_series[key]

    def plan_again(self) -> None:
        """Plan anew where what the plan depends on has changed."""
        for roster in self._by_strategies.values():
            fingerprint = self._planner.fingerprint(roster.strategies)
            if fingerprint != roster.fingerprint:
                roster.fingerprint, roster.plan = fingerprint, self._planner.plan(roster.strategies)

    def plan_for(self, roster: Roster, but: Collection[int], half_open: Collection[int]) -> Plan:
        """Plan the chunks of a dispatch that is not sent to all it expects, or to some only to find out.

        Args:
            roster: who answers.
            but: strategies that are left out.
            half_open: strategies whose job finds out whether they work again.
        """
        return self._planner.plan([s for s in roster.strategies if s.id not in but], half_open)

    def _roster(self, wanted: list[RegisteredStrategy]) -> Roster:
        ids = tuple(s.id for s in wanted)
        if ids not in self._by_strategies:
            expected = Expected.build([(s.id, s.revision, s.definition.weight) for s in wanted])
            keys = {s.id: JobKey(s.id, s.revision) for s in wanted}
            plan = self._planner.plan(wanted)
            self._by_strategies[ids] = Roster(wanted, expected, keys, self._planner.fingerprint(wanted), plan)
        return self._by_strategies[ids]
