"""How soon every slot of a busy node works with a new revision, and what a slot holds with a hundred strategies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from threading import Event, Thread

import psycopg
from sqlalchemy import Engine

from app.benchmark.fleet import FleetContender
from app.benchmark.ground import Node
from app.benchmark.market import Close
from app.benchmark.measuring import BenchmarkError
from app.benchmark.results import FLEET, SLOT_MB, SWITCH_MS
from app.benchmark.stage import Stage
from app.benchmark.tables import connect
from app.benchmark.watching import pss_mb
from app.benchmark.workloads import Workload, switched
from app.domain.strategies import StrategyDefinition
from app.storage.engine import open_engine
from app.storage.strategies import save_definition

#: Candles a second while strategies are switched, each answered by all: two slots are busy a quarter of their time.
CANDLES_PER_S = 100.0
#: Seconds in which a switch must be seen everywhere.
PATIENCE_S = 30.0
#: Seconds between two looks: the figures come from Postgres' stamps, not from here.
LOOK_EVERY_S = 0.01

_FIRST_OF_EACH_SLOT = """
    SELECT extract(epoch FROM min(finished_at))::float8 FROM outcomes
    WHERE strategy_id = %s AND strategy_revision = %s AND dispatch_id > %s GROUP BY worker
"""
_NEWEST = "SELECT coalesce(max(id), 0) FROM dispatches"


def measure_switching(stage: Stage) -> None:
    """Switch strategies while candles come, and weigh the slots."""
    workload = switched()
    with (
        stage.ground.node("switch") as node,
        stage.ground.fleet(node, "switch") as fleet,
        connect(node.settings.database_dsn, "bench") as connection,
        open_engine(node.settings.database_dsn, name="bench") as engine,
    ):
        stage.teach(fleet, [workload])
        fleet.run(stage.take(fleet, workload, 4 * workload.symbols))
        stage.results.add(workload.name, FLEET, SLOT_MB, max(pss_mb([slot]) for slot in node.slots))
        for number in range(stage.plan.rounds):
            with _coming(fleet, partial(stage.take, fleet, workload)):
                for changed in _changes(workload, number, stage.plan.switches):
                    stage.results.add(workload.name, FLEET, SWITCH_MS, _switch(engine, connection, node, changed))


def _changes(workload: Workload, number: int, count: int) -> Iterator[StrategyDefinition]:
    """Yield a strategy with params that it did not have in this round, nor in the one before."""
    one = next(workload.definitions())
    for look in range(count):
        yield one.model_copy(update={"params": {"look": 4 + look + count * (number % 2)}})


@contextmanager
def _coming(fleet: FleetContender, take: Callable[[int], Sequence[Close]]) -> Iterator[None]:
    """Have candles come on the clock meanwhile."""
    over = Event()
    thread = Thread(target=fleet.run_until, args=(over, take, CANDLES_PER_S), name="candles")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _switch(
    engine: Engine, connection: psycopg.Connection[tuple[float]], node: Node, definition: StrategyDefinition
) -> float:
    """Change a strategy; return milliseconds until each slot has recorded an outcome of the new revision."""
    ((newest,),) = connection.execute(_NEWEST).fetchall()
    began = time.time()
    with engine.begin() as transaction:
        strategy = save_definition(transaction, definition).strategy
    while (waited := time.time() - began) < PATIENCE_S:
        seen = connection.execute(_FIRST_OF_EACH_SLOT, (strategy.id, strategy.revision, newest)).fetchall()
        if len(seen) == len(node.slots):
            return (max(chain.from_iterable(seen)) - began) * 1000
        time.sleep(LOOK_EVERY_S)
    raise BenchmarkError(f"not every slot has used revision {strategy.revision} within {waited:.0f} s")
