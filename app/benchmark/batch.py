"""Batch runs against one plain process: the same strategies on the same candles, without queue, claims or rows."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from psycopg import Connection

from app.benchmark.results import CANDLES_PER_S, FLEET, SEQUENTIAL, SIGNALS
from app.benchmark.stage import SEED, Stage
from app.benchmark.tables import connect
from app.broker import BATCH_QUEUE
from app.domain.candles import Timeframe
from app.domain.runs import Method, RunSpec, RunState
from app.operations import BUILTIN_DEFINITIONS, Operations
from app.operations_runs import Watch, plan, start
from app.runs.evaluating import evaluate_span
from app.runs.metrics import compute
from app.runs.planning import Plan
from app.runs.spans import Span
from app.runs.specification import parse_spec
from app.runs.trading import trade
from app.storage.copying import build_rows, copy_rows, floats, moments, word
from app.storage.ranges import load_range
from app.strategies.registry import Registry

#: Symbols of a run: those after the first show that candles and indicators are given up, and forty units share what a
#: run costs once.
SYMBOLS = ("RUN-0", "RUN-1", "RUN-2", "RUN-3")
#: Where the stored series begin, and how many candles of them warm up.
BEGIN, WARM_UP = datetime(2020, 1, 1, tzinfo=UTC), 600
#: Seconds between two looks at a run: a small part of what it takes.
LOOK_EVERY_S = 0.02

_COLUMNS = ("symbol", "timeframe", "open_time", "open", "high", "low", "close", "volume", "source")
_SERIES = "INSERT INTO series (symbol, timeframe, last_open_time, rewrites) VALUES (%s, %s, %s, 0)"


def measure_runs(stage: Stage) -> None:
    """Candles that one slot evaluates in a second, ten built-in strategies, storage included."""
    methods = {Method.AUTO: stage.plan.run_candles, Method.WINDOWS: stage.plan.window_candles}
    options = {"CANDLEFLEET_RUNS__NICE": "0"}  # the plain process is not nice either
    with stage.ground.node("runs", slots=1, environment=options, queues=BATCH_QUEUE) as node:
        operations = Operations(node.settings)
        try:
            with connect(node.settings.database_dsn, "bench runs") as connection:
                store_series(connection, max(methods.values()) + WARM_UP)
                for method, candles in methods.items():
                    _measure(
                        stage, operations, connection, build_spec(candles, method=method, limits={"timeout_ms": 60_000})
                    )
        finally:
            operations.close()


def store_series(connection: Connection[tuple[object, ...]], count: int) -> None:
    """Store a random walk of minutes for each symbol."""
    for number, symbol in enumerate(SYMBOLS):
        rng = np.random.default_rng(SEED + number)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, count)))
        open_ = np.concatenate(([100.0], close[:-1]))
        high = np.maximum(open_, close) * (1 + abs(rng.normal(0, 0.001, count)))
        low = np.minimum(open_, close) * (1 - abs(rng.normal(0, 0.001, count)))
        opened_ms = round(BEGIN.timestamp()) * 1000 + np.arange(count) * 60_000
        prices = map(floats, (open_, high, low, close, np.full(count, 10.0)))
        columns = (word(symbol), word(Timeframe.M1.value), moments(opened_ms), *prices, word("bench"))
        copy_rows(connection, "candles", _COLUMNS, [build_rows(count, columns)])
        last = BEGIN + (count - 1) * Timeframe.M1.duration
        connection.execute(_SERIES, (symbol, Timeframe.M1.value, last))


def build_spec(candles: int, **more: Any) -> RunSpec:
    """Build the specification of a run of all built-in strategies over so many candles of each symbol."""
    since = BEGIN + WARM_UP * Timeframe.M1.duration
    return parse_spec(
        {
            "strategies": [str(BUILTIN_DEFINITIONS)],
            "symbols": list(SYMBOLS),
            "timeframe": Timeframe.M1,
            "from": since,
            "to": since + timedelta(minutes=candles),
            **more,
        }
    )


def _measure(stage: Stage, operations: Operations, connection: Connection[tuple[object, ...]], spec: RunSpec) -> None:
    planned, named = plan(operations, spec), f"runs-{spec.method}"
    window = operations.settings.worker.window
    time_run(operations, spec)  # warms up
    for _ in range(stage.plan.rounds):
        stage.results.add(named, FLEET, CANDLES_PER_S, planned.candles / time_run(operations, spec))
        for contender in (SEQUENTIAL, SIGNALS):
            plain_s = time_plain(connection, spec, planned, window, trades=contender is SEQUENTIAL)
            stage.results.add(named, contender, CANDLES_PER_S, planned.candles / plain_s)
    found = [each for each in stage.results if each.key.workload == named]
    stage.say(f"{named}: {CANDLES_PER_S} " + ", ".join(f"{each.key.contender} {each.median:,.4g}" for each in found))


def time_run(operations: Operations, spec: RunSpec) -> float:
    """Return how long a run takes from its start to its last row, seconds."""
    began = time.perf_counter()
    watch = Watch(operations, start(operations, spec).run.id)
    try:
        while watch.look(datetime.now(UTC)).state is RunState.RUNNING:
            time.sleep(LOOK_EVERY_S)
    finally:
        watch.close()
    return time.perf_counter() - began


def time_plain(
    connection: Connection[tuple[object, ...]], spec: RunSpec, planned: Plan, window: int, *, trades: bool
) -> float:
    """Return how long one process takes for the same units that only computes, seconds.

    Args:
        connection: to where the candles are.
        spec: of the run.
        planned: its units.
        window: candles that a strategy sees.
        trades: whether positions and figures are computed too, or the strategies' own calls only.
    """
    registry, began = Registry(), time.perf_counter()
    wanted = {"since": spec.from_time, "until": spec.to_time}
    for symbol in SYMBOLS:
        bars = load_range(connection, symbol, spec.timeframe, **wanted, before=window - 1)
        for variant in planned.variants:
            # a span of its own: nobody shares indicators here
            span = Span(bars, int(np.searchsorted(bars.open_time, spec.from_time.timestamp() * 1000)), window, 0)
            strategy = registry.create(variant.implementation, variant.params)
            cells = evaluate_span(strategy, span, spec.method)
            if trades:
                traded = trade(span, cells, variant.trading)
                compute(traded.curve, traded.trades, spec.timeframe)
    return time.perf_counter() - began
