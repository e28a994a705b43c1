"""Plain Celery as a competent user writes it: what `celery -A app.benchmark.celery_worker worker` loads.

One message a job, acknowledged late, JSON, no result backend; one connection per pool process, statements
prepared, one INSERT a job that commits by itself. Windows and strategies are kept in the process.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from app.benchmark.catalogue import Strategies
from app.benchmark.celery_app import TASK, create_plain_celery
from app.benchmark.market import TIMEFRAME
from app.benchmark.tables import connect
from app.benchmark.windows import Row, Windows
from app.domain.jobs import JobKey
from app.settings import Settings, load_settings
from app.strategies.evaluation import evaluate

_INSERT = """
    INSERT INTO bench_celery_outcomes (dispatch_id, strategy_id, strategy_revision, status, action, strength, edge,
                                       attempt, queued_ms, processing_ms, worker)
    VALUES (%s, %s, %s, 'succeeded', %s, %s, %s, 0, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_LOAD = """
    SELECT open_ms, open, high, low, close, volume FROM bench_celery_candles
    WHERE symbol = %s AND open_ms > %s AND open_ms <= %s ORDER BY open_ms
"""


class PoolProcess:
    """What one process of the pool keeps."""

    def __init__(self, settings: Settings) -> None:
        self._connection = connect(settings.database_dsn, "bench celery")
        self._strategies = Strategies(self._connection)
        self._windows = Windows(TIMEFRAME, settings.worker.window, self._load)
        self._name = f"celery:{os.getpid()}"

    def execute(self, dispatch_id: int, symbol: str, candle: Row, sent_at: float, key: JobKey) -> None:
        """Execute one job and record its outcome."""
        started_at, started = time.time(), time.perf_counter()
        cache = self._windows.at(symbol, candle)
        signal = evaluate(self._strategies[key], cache.bars, cache)
        took_ms = (time.perf_counter() - started) * 1000
        answer = (signal.action, signal.strength, signal.edge)
        values = (dispatch_id, *key, *answer, (started_at - sent_at) * 1000, took_ms, self._name)
        self._connection.execute(_INSERT, values, prepare=True)

    def _load(self, symbol: str, after_ms: int, until_ms: int) -> list[Any]:
        return self._connection.execute(_LOAD, (symbol, after_ms, until_ms)).fetchall()


def build_worker_app() -> Celery:
    """Build the application of a worker from the environment."""
    settings = load_settings()
    app = create_plain_celery(settings)
    kept: dict[str, PoolProcess] = {}

    def open_process(**_: Any) -> None:
        kept["process"] = PoolProcess(settings)

    worker_process_init.connect(open_process, weak=False)

    def execute(dispatch_id: int, symbol: str, candle: list[float], sent_at: float, strategy: list[int]) -> None:
        kept["process"].execute(dispatch_id, symbol, candle, sent_at, JobKey(*strategy))

    app.task(name=TASK)(execute)
    return app


app = build_worker_app()
