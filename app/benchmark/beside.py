"""Live candles while a large batch run is under way on the same cores, against a fleet that has nothing else to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from app.benchmark.batch import LOOK_EVERY_S, WARM_UP, build_spec, store_series
from app.benchmark.measuring import BenchmarkError
from app.benchmark.results import FLEET, IDLE, P95_MS
from app.benchmark.stage import Stage
from app.benchmark.tables import connect
from app.benchmark.workloads import light
from app.broker import BATCH_QUEUE
from app.domain.runs import RunSpec, RunState
from app.operations import Operations
from app.operations_runs import Watch, cancel, start

#: Told how many units have ended, and how many slots work on the run.
Condition = Callable[[int, int], bool]

#: Candles a second of the steady load, 50 jobs each.
CANDLES_PER_S = 20.0
#: Units of the run, many more than are executed while it is looked at: 1,500 sets of params on each symbol.
GRID = {"ema-cross-fast": {"fast": list(range(2, 32)), "slow": list(range(40, 90))}}
#: Seconds that the run may take to get under way, and to end once it is cancelled.
PATIENCE_S = 30.0


def measure_beside(stage: Stage) -> None:
    """p95 of live jobs from dispatch to landed, with a run on as many slots and without."""
    node, workload = stage.node, light(50)
    stage.warm_up(stage.fleet, workload)
    with stage.ground.beside(node, "batch", queues=BATCH_QUEUE):
        operations = Operations(node.settings)
        try:
            with connect(node.settings.database_dsn, "bench beside") as connection:
                store_series(connection, stage.plan.run_candles + WARM_UP)
            for _ in range(stage.plan.rounds):
                _measure(stage, IDLE)
                with _under_way(operations, build_spec(stage.plan.run_candles, grid=GRID)):
                    _measure(stage, FLEET)
        finally:
            operations.close()
    found = [each for each in stage.results if each.key.workload == "beside-50"]
    stage.say(f"beside-50: {P95_MS} " + ", ".join(f"{each.key.contender} {each.median:,.4g}" for each in found))


def _measure(stage: Stage, contender: str) -> None:
    closes = stage.take(stage.fleet, light(50), round(CANDLES_PER_S * stage.plan.steady_seconds))
    stage.results.add("beside-50", contender, P95_MS, stage.fleet.run_steady(closes, CANDLES_PER_S, ()))


@contextmanager
def _under_way(operations: Operations, spec: RunSpec) -> Iterator[None]:
    """Have a run executed meanwhile.

    Raises:
        BenchmarkError: it did not get under way, was over too early, or did not end when it was cancelled.
    """
    run = start(operations, spec).run
    watch = Watch(operations, run.id)
    try:
        _await(watch, lambda ended, _slots: ended > 0, "get under way")
        yield
        if watch.look(datetime.now(UTC)).state is not RunState.RUNNING:
            raise BenchmarkError("the run beside live candles was over before they were")
    finally:
        cancel(operations, run.id)
        _await(watch, lambda _ended, slots: slots == 0, "end when it was cancelled")
        watch.close()


def _await(watch: Watch, is_so: Condition, what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        progress = watch.look(datetime.now(UTC))
        if is_so(progress.ended, progress.slots):
            return
        if time.monotonic() > until:
            raise BenchmarkError(f"a run did not {what} within {PATIENCE_S:g} s")
        time.sleep(LOOK_EVERY_S)
