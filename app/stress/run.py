"""One stress test from its servers to its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from threading import Event

import psutil

from app.broker import BATCH_QUEUE
from app.deployment import Deployment, throwaway
from app.domain.runs import RunSpec, RunState
from app.operations import BUILTIN_DEFINITIONS, Operations
from app.operations_evaluations import load_selection
from app.operations_runs import Watch, start
from app.processes import Children
from app.runs.specification import parse_spec
from app.settings import Settings
from app.storage import runs
from app.storage.engine import driver_of, open_engine
from app.storage.listings_runs import load_span, load_workers
from app.storage.migrate import upgrade
from app.storage.nodes import count_slots
from app.storage.runs import Run
from app.strategies.bars import Bars
from app.strategies.registry import Registry
from app.stress.markets import SPARE, Markets, load_series, write_markets
from app.stress.plan import Plan, StressError, candles_needed, choose_strategies
from app.stress.report import Measured, Report
from app.stress.watching import MemoryWatch
from app.wording import counted

#: Seconds that nodes may take to start, and that a run may take.
PATIENCE_S = 300.0
#: Seconds between two looks, which cost the machine; the figures come from Postgres' stamps, not from here.
LOOK_EVERY_S = 0.1
#: Markets of the runs that come first and are not measured, a few in each slice, and how many runs there are at most.
WARM_UP, WARM_UP_SLICE, MOST_WARM_UPS = 100, 5, 20

Say = Callable[[str], None]


def run_stress(settings: Settings, plan: Plan, stop: Event, say: Say) -> Report:
    """Evaluate many markets once, select positions, validate.

    Args:
        settings: what is set there for runs and selection is what is measured; its servers are not used.
        plan: what to do.
        stop: ends it early.
        say: told what is under way.

    Raises:
        StressError: it was stopped, a process ended, or the run did not end.
        ConfigurationError: an unknown strategy, or no files with enough candles.
    """
    loaded = load_series(plan.data, plan.size.markets, settings.worker.window + SPARE)
    with throwaway(settings) as deployment:
        upgrade_all(deployment.settings)
        operations = Operations(deployment.settings)
        try:
            operations.add_unverified(BUILTIN_DEFINITIONS)
            return _Stress(deployment, operations, plan, stop, say).run(*loaded)
        finally:
            operations.close()


def upgrade_all(settings: Settings) -> None:
    """Give the servers the newest schema."""
    with open_engine(settings.database_dsn, name="stress") as engine:
        upgrade(engine)


class _Stress:
    def __init__(self, deployment: Deployment, operations: Operations, plan: Plan, stop: Event, say: Say) -> None:
        self._deployment = deployment
        self._operations = operations
        self._plan = plan
        self._stop = stop
        self._say = say
        known = [each.definition for each in operations.read_definitions(BUILTIN_DEFINITIONS)]
        self._strategies = choose_strategies(known, plan.strategies)

    def run(self, series: Sequence[Bars], source: str) -> Report:
        markets = self._write(series, source)
        with self._nodes() as pids:
            self._say(f"{counted(len(pids), 'slot')} to serve runs")
            self._warm_up(markets, len(pids))
            measured = [self._measure(self._spec(markets, ("*",)), pids) for _ in range(self._plan.rounds)]
        return Report(self._plan, markets, tuple(each.name for each in self._strategies), measured)

    def _write(self, series: Sequence[Bars], source: str) -> Markets:
        began, settings, plan = time.monotonic(), self._deployment.settings, self._plan
        window, registry = settings.worker.window, Registry(settings.strategies.modules)
        needed = candles_needed(self._strategies, registry, window, series[0].timeframe) + SPARE
        with self._operations.engine.connect() as connection:
            driver = driver_of(connection)
            driver.set_autocommit(True)
            markets = write_markets(driver, series, plan.size.markets, needed, source)
            driver.set_autocommit(False)
        took = time.monotonic() - began
        self._say(f"{len(markets.symbols):,} markets of {needed} candles from {source} written in {took:.1f} s")
        return markets

    @contextmanager
    def _nodes(self) -> Iterator[list[int]]:
        """Run the worker nodes; yield the process ids of their slots."""
        plan = self._plan
        with Children(self._deployment.settings.home / "logs", self._deployment.environment) as children:
            for number in range(plan.workers):
                options = ("--queues", BATCH_QUEUE, "--concurrency", str(plan.slots), "--name", f"stress-{number}@%h")
                children.start(f"node-{number}", "app.cli.main", "worker", *options)
            self._await(lambda: self._count_slots() >= plan.workers * plan.slots, children)
            parents = [psutil.Process(children.pid(f"node-{number}")) for number in range(plan.workers)]
            yield [child.pid for parent in parents for child in parent.children()]

    def _warm_up(self, markets: Markets, slots: int) -> None:
        """Let every slot evaluate something: a fleet in service has its connections and has loaded its code."""
        workers: set[str] = set()
        for _ in range(MOST_WARM_UPS):
            spec = self._spec(markets, markets.symbols[:WARM_UP], batch_size=WARM_UP_SLICE)
            run = self._finish(start(self._operations, spec).run)
            with self._operations.reading() as connection:
                workers |= load_workers(connection, run.id)
            if len(workers) >= slots:
                return

    def _count_slots(self) -> int:
        with self._operations.reading() as connection:
            return count_slots(connection, self._deployment.settings.silence, [BATCH_QUEUE])

    def _await(self, is_so: Callable[[], bool], children: Children) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_so():
            for name in children.dead():
                raise StressError(f"{name} ended; the end of its log:\n{children.tail(name)}")
            self._pause(until)

    def _pause(self, until: float) -> None:
        if self._stop.wait(LOOK_EVERY_S):
            raise StressError("stopped before the end")
        if time.monotonic() > until:
            raise StressError(f"not done after {PATIENCE_S:g} s")

    def _spec(self, markets: Markets, symbols: Sequence[str], **limits: int) -> RunSpec:
        document = {
            "kind": "evaluate",
            "strategies": [each.name for each in self._strategies],
            "symbols": list(symbols),
            "timeframe": markets.timeframe.value,
            "to": markets.until.isoformat(),
            "limits": limits,
        }
        return parse_spec(document)

    def _measure(self, spec: RunSpec, pids: list[int]) -> Measured:
        with ExitStack() as stack:
            memory = stack.enter_context(MemoryWatch(pids))
            handed_in_at = datetime.now(UTC)
            run = self._finish(start(self._operations, spec).run)
        summary = load_selection(self._operations, run.id, 1).summary
        with self._operations.reading() as connection:
            span = load_span(connection, run.id)
        return Measured(run, handed_in_at, tuple(memory.most_bytes.values()), summary, *span)

    def _finish(self, run: Run) -> Run:
        watch, until = Watch(self._operations, run.id), time.monotonic() + PATIENCE_S
        try:
            while watch.look(datetime.now(UTC)).state is RunState.RUNNING:
                self._pause(until)
        finally:
            watch.close()
        with self._operations.reading() as connection:
            return runs.load_run(connection, run.id)
