"""The limit of the machine: the same strategy calls in one plain process per core, one COPY per candle, no queue."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import psycopg

from app.benchmark.catalogue import Roster, Strategies
from app.benchmark.market import TIMEFRAME, Close
from app.benchmark.measuring import BenchmarkError, Run
from app.benchmark.results import LIMIT
from app.benchmark.tables import connect
from app.benchmark.windows import Row, Windows, row_of
from app.domain.jobs import JobKey
from app.settings import Settings
from app.strategies.evaluation import evaluate
from app.strategies.indicators import IndicatorCache

_COPY = """
    COPY bench_limit_outcomes (dispatch_id, strategy_id, strategy_revision, status, action, strength, edge, attempt,
                               queued_ms, processing_ms, worker) FROM STDIN
"""

#: Seconds a process may be silent.
PATIENCE_S = 120.0

#: A candle as a process is sent it: dispatch id, symbol, numbers.
Item = tuple[int, str, Row]


class LimitContender:
    """Processes that wait for candles on a pipe. A symbol always goes to the same one: no window has gaps."""

    name = LIMIT
    most_symbols = sys.maxsize

    def __init__(self, settings: Settings, roster: Roster, processes: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._dispatches = 0
        self._places: dict[str, int] = {}
        self._pipes = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = spawn.Pipe()
            given = (theirs, settings.database_dsn, settings.worker.window, roster)
            process = spawn.Process(target=_serve, args=given, daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, closes: Sequence[Close]) -> Run:
        """Have these candles answered; the clock starts when every process holds its candles."""
        for pipe, share in zip(self._pipes, self._share_out(closes), strict=True):
            pipe.send(share)
        for pipe in self._pipes:
            _receive(pipe)
        started_at = time.time()
        for pipe in self._pipes:
            pipe.send(None)
        answers = [_receive(pipe) for pipe in self._pipes]
        return Run(sum(jobs for jobs, _ in answers), max(ended for _, ended in answers) - started_at)

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join(5)

    def _share_out(self, closes: Sequence[Close]) -> list[list[Item]]:
        shares: list[list[Item]] = [[] for _ in self._pipes]
        for candle in (candle for close in closes for candle in close):
            self._dispatches += 1
            place = self._places.setdefault(candle.symbol, place_of(len(self._places), len(shares)))
            shares[place].append((self._dispatches, candle.symbol, row_of(candle)))
        return shares


def place_of(number: int, places: int) -> int:
    """Return where a symbol goes: there and back again, since every second one may have the pausing jobs.

    Args:
        number: of the symbol.
        places: how many there are.
    """
    there, place = divmod(number, places)
    return place if there % 2 == 0 else places - 1 - place


class Evaluator:
    """Answers candles in one process.

    Args:
        connection: in autocommit.
        length: candles a strategy sees.
        roster: who answers which symbol.
    """

    def __init__(self, connection: psycopg.Connection[Any], length: int, roster: Roster) -> None:
        self._connection = connection
        self._strategies = Strategies(connection)
        self._windows = Windows(TIMEFRAME, length)
        self._roster = roster
        self._name = f"limit:{os.getpid()}"
        self._own = 0

    def time_each(self, closes: Sequence[Close]) -> list[float]:
        """Answer candles one after another; return the milliseconds that each took, its COPY included."""
        took = []
        for candle in (candle for close in closes for candle in close):
            self._own -= 1  # below every dispatch of the limit, which shares the table
            started = time.perf_counter()
            self.execute((self._own, candle.symbol, row_of(candle)))
            took.append((time.perf_counter() - started) * 1000)
        return took

    def execute(self, item: Item) -> int:
        """Answer one candle and record it with one COPY; return the number of jobs."""
        dispatch_id, symbol, row = item
        keys, started = self._roster.jobs(symbol), time.perf_counter()
        cache = self._windows.at(symbol, row)
        lines = "".join([self._line(dispatch_id, key, cache, started) for key in keys])
        with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write(lines)
        return len(keys)

    def _line(self, dispatch_id: int, key: JobKey, cache: IndicatorCache, dispatched: float) -> str:
        started = time.perf_counter()
        answer = evaluate(self._strategies[key], cache.bars, cache)
        took_ms, queued_ms = (time.perf_counter() - started) * 1000, (started - dispatched) * 1000
        edge = "\\N" if answer.edge is None else repr(answer.edge)
        return (
            f"{dispatch_id}\t{key.strategy_id}\t{key.revision}\tsucceeded\t{answer.action}\t{answer.strength!r}\t{edge}"
            f"\t0\t{queued_ms!r}\t{took_ms!r}\t{self._name}\n"
        )


def _receive(pipe: Connection[Any, Any]) -> tuple[int, float]:
    if not pipe.poll(PATIENCE_S):
        raise BenchmarkError(f"a process of the limit did not answer within {PATIENCE_S:g} s")
    answer: tuple[int, float] = pipe.recv()
    return answer


def _serve(pipe: Connection[Any, Any], dsn: str, length: int, roster: Roster) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked; it closes the pipe
    with connect(dsn, "bench limit") as connection:
        evaluator = Evaluator(connection, length, roster)
        while True:
            try:
                items = pipe.recv()
            except EOFError:
                return
            pipe.send(None)
            pipe.recv()
            jobs = sum([evaluator.execute(item) for item in items])
            pipe.send((jobs, time.time()))
