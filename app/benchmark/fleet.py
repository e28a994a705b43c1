"""This system as a contender: its real producer in this process, on worker nodes as an operator starts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Event, Thread
from types import TracebackType
from typing import Any, LiteralString, Self

from app.benchmark.market import Close, HandedFeed
from app.benchmark.measuring import BenchmarkError, Run, Watcher
from app.benchmark.tables import connect
from app.broker import Publisher, create_celery
from app.producer.build import build_producer
from app.settings import Settings
from app.storage.engine import build_engine

_NEWEST = "SELECT coalesce(max(id), 0) FROM dispatches"
_DECIDED = "SELECT count(*) FROM decisions WHERE dispatch_id > %s"
_LATENCIES = "SELECT latency_ms FROM decisions WHERE dispatch_id > %s ORDER BY dispatch_id"
_END = """
    SELECT extract(epoch FROM (SELECT max(decided_at) FROM decisions WHERE dispatch_id > %(before)s))::float8,
           (SELECT sum(landed) FROM dispatches WHERE id > %(before)s)::bigint
"""
_LANDED_AFTER = """
    SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM o.finished_at - d.created_at)::float8 * 1000)
    FROM outcomes o JOIN dispatches d ON d.id = o.dispatch_id
    WHERE o.dispatch_id > %s AND NOT o.strategy_id = ANY(%s)
"""

#: Seconds between two looks whether a single candle is decided: often enough to go on soon, too rarely to disturb.
LOOK_OFTEN_S = 0.005


class FleetContender:
    """A producer that lives as long as the contender; its node is started by whoever builds this.

    Args:
        name: how the report calls it.
        settings: of the producer; its key prefix is that of the node which does the work.
        watcher: of the node.
        most_symbols: it is given.
    """

    def __init__(self, name: str, settings: Settings, watcher: Watcher, most_symbols: int) -> None:
        self.name = name
        self.most_symbols = most_symbols
        self._watcher = watcher
        self._feed = HandedFeed()
        self._engine = build_engine(settings.database_dsn, name=f"bench {name}")
        self._publisher = Publisher(create_celery(settings), settings.dispatch.room)
        self._producer = build_producer(settings, self._engine, self._publisher, self._feed)
        self._connection = connect(settings.database_dsn, "bench")
        self._ending = Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._produce, name=f"producer {name}", daemon=True)
        self._thread.start()

    def run(self, closes: Sequence[Close]) -> Run:
        """Produce these candles and wait until each has its decision."""
        before, started_at = self._ask(_NEWEST), time.time()
        self._feed.hand(closes)
        self._watcher.await_count(lambda: self._decided(before), sum(map(len, closes)))
        return self._result(before, started_at)

    def run_paced(self, closes: Sequence[Close]) -> Run:
        """Produce one candle at a time: the next one comes when the last one is decided."""
        before, started_at = self._ask(_NEWEST), time.time()
        for number, candle in enumerate((candle for close in closes for candle in close), 1):
            self._feed.hand([[candle]])
            self._watcher.await_count(lambda: self._decided(before), number, LOOK_OFTEN_S)
        return self._result(before, started_at)

    def run_steady(self, closes: Sequence[Close], per_second: float, without: Sequence[int]) -> float:
        """Produce candles one by one on the clock; return p95 from dispatch to landed, milliseconds.

        Args:
            closes: the candles.
            per_second: how many, whether or not the last ones are decided.
            without: strategies whose jobs are not counted.
        """
        before, began = self._ask(_NEWEST), time.monotonic()
        candles = [candle for close in closes for candle in close]
        for number, candle in enumerate(candles):
            self._watcher.pause(began + number / per_second - time.monotonic())
            self._feed.hand([[candle]])
        self._watcher.await_count(lambda: self._decided(before), len(candles))
        return float(self._connection.execute(_LANDED_AFTER, (before, list(without))).fetchone()[0])  # type: ignore[index]

    def run_until(self, over: Event, take: Callable[[int], Sequence[Close]], per_second: float) -> None:
        """Produce candles one by one on the clock until told that it is over, and wait until all are decided.

        Args:
            over: ends it.
            take: returns the next so many candles.
            per_second: how many, whether or not the last ones are decided.
        """
        before, began, handed = self._ask(_NEWEST), time.monotonic(), 0
        while not over.wait(max(0.0, began + handed / per_second - time.monotonic())):
            self._feed.hand(take(1))
            handed += 1
        self._watcher.await_count(lambda: self._decided(before), handed)

    def close(self) -> None:
        """End the producer."""
        self._ending.set()
        self._feed.end()
        self._thread.join()
        self._publisher.close()
        self._engine.dispose()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _produce(self) -> None:
        try:
            self._producer.run(self._ending)
        except BaseException as error:  # told by whoever waits for its candles
            self._failure = error

    def _decided(self, before: int) -> int:
        if self._failure is not None:
            raise BenchmarkError(f"the producer ended: {self._failure!r}") from self._failure
        return self._ask(_DECIDED, before)

    def _result(self, before: int, started_at: float) -> Run:
        ended_at, jobs = self._row(_END, {"before": before})
        latencies = self._connection.execute(_LATENCIES, (before,)).fetchall()
        return Run(jobs, ended_at - started_at, tuple(row[0] for row in latencies))

    def _ask(self, query: LiteralString, *values: int) -> int:
        return int(self._row(query, values)[0])

    def _row(self, query: LiteralString, values: Any) -> Any:
        return self._connection.execute(query, values).fetchone()
