"""The catalogue of a benchmark: registers the strategies of workloads and finds them again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from sqlalchemy import Engine

from app.benchmark.market import TIMEFRAME
from app.benchmark.workloads import MODULE, Workload
from app.domain.jobs import JobKey
from app.domain.strategies import RegisteredStrategy
from app.storage.strategies import save_definition
from app.strategies.registry import Registry
from app.strategies.sdk import Strategy

_REVISION = "SELECT implementation, params FROM strategy_revisions WHERE strategy_id = %s AND revision = %s"


class Roster:
    """Who answers the candles of a symbol; looked up once for each."""

    def __init__(self, strategies: Iterable[RegisteredStrategy]) -> None:
        self._strategies = tuple(strategies)
        self._known: dict[str, list[JobKey]] = {}

    def jobs(self, symbol: str) -> list[JobKey]:
        """Return the jobs of each of its candles."""
        keys = self._known.get(symbol)
        if keys is None:
            asked = [each for each in self._strategies if each.definition.subscription.matches(symbol, TIMEFRAME)]
            keys = self._known[symbol] = [JobKey(each.id, each.revision) for each in asked]
        return keys

    def pausing(self) -> list[int]:
        """Return the ids of the strategies that pause."""
        return [each.id for each in self._strategies if "pause_ms" in each.definition.params]


def register(engine: Engine, workloads: Iterable[Workload]) -> Roster:
    """Write the strategies of workloads into the catalogue; return who answers which symbol."""
    with engine.begin() as connection:
        return Roster(
            save_definition(connection, definition).strategy
            for workload in workloads
            for definition in workload.definitions()
        )


class Strategies:
    """Strategies of one process, created once each from the catalogue."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._registry = Registry((MODULE,))
        self._known: dict[JobKey, Strategy] = {}

    def __getitem__(self, key: JobKey) -> Strategy:
        strategy = self._known.get(key)
        if strategy is None:
            row = self._connection.execute(_REVISION, key).fetchone()
            if row is None:
                raise LookupError(f"no strategy {key}")
            strategy = self._known[key] = self._registry.create(row[0], row[1])
        return strategy
