"""Plain Celery as a contender: its producer. What its worker does is in `app.benchmark.celery_worker`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from app.benchmark.catalogue import Roster
from app.benchmark.celery_app import TASK, create_plain_celery
from app.benchmark.fleet import LOOK_OFTEN_S
from app.benchmark.market import Close
from app.benchmark.measuring import LOOK_EVERY_S, Run, Watcher
from app.benchmark.results import CELERY
from app.benchmark.tables import connect
from app.benchmark.windows import row_of
from app.domain.candles import Candle
from app.settings import Settings

_INSERT = """
    INSERT INTO bench_celery_candles (symbol, open_ms, open, high, low, close, volume)
    VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id
"""
_COUNT = "SELECT count(*) FROM bench_celery_outcomes WHERE dispatch_id >= %s"
_ENDS = """
    SELECT extract(epoch FROM max(o.finished_at) - c.created_at)::float8 * 1000,
           extract(epoch FROM max(o.finished_at))::float8
    FROM bench_celery_outcomes o JOIN bench_celery_candles c ON c.id = o.dispatch_id
    WHERE c.id >= %s GROUP BY c.id, c.created_at ORDER BY c.id
"""


class CeleryContender:
    """One `apply_async` a job; its worker is started by whoever builds this."""

    name = CELERY

    def __init__(self, settings: Settings, roster: Roster, watcher: Watcher, most_symbols: int) -> None:
        self.most_symbols = most_symbols
        self._roster = roster
        self._watcher = watcher
        self._app = create_plain_celery(settings)
        self._connection = connect(settings.database_dsn, "bench celery")

    def run(self, closes: Sequence[Close]) -> Run:
        """Send every job of these candles and wait until each has its row."""
        started_at = time.time()
        sent = [self._send(candle) for close in closes for candle in close]
        first, jobs = sent[0][0], sum(count for _, count in sent)
        self._await(first, jobs, LOOK_EVERY_S)
        return self._result(first, jobs, started_at)

    def run_paced(self, closes: Sequence[Close]) -> Run:
        """Send one candle's jobs at a time: the next one's when the last one's rows are there."""
        started_at, first, jobs = time.time(), 0, 0
        for candle in (candle for close in closes for candle in close):
            dispatch_id, count = self._send(candle)
            self._await(dispatch_id, count, LOOK_OFTEN_S)
            first, jobs = first or dispatch_id, jobs + count
        return self._result(first, jobs, started_at)

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()
        self._connection.close()

    def _send(self, candle: Candle) -> tuple[int, int]:
        row, keys = row_of(candle), self._roster.jobs(candle.symbol)
        answer = self._connection.execute(_INSERT, (candle.symbol, *row), prepare=True).fetchone()
        dispatch_id = int(answer[0]) if answer else 0
        for key in keys:
            self._app.send_task(TASK, (dispatch_id, candle.symbol, row, time.time(), key))
        return dispatch_id, len(keys)

    def _await(self, first: int, jobs: int, look_every_s: float) -> None:
        def count() -> int:
            row = self._connection.execute(_COUNT, (first,), prepare=True).fetchone()
            return int(row[0]) if row else 0

        self._watcher.await_count(count, jobs, look_every_s)

    def _result(self, first: int, jobs: int, started_at: float) -> Run:
        rows = self._connection.execute(_ENDS, (first,)).fetchall()
        return Run(jobs, max(row[1] for row in rows) - started_at, tuple(row[0] for row in rows))
