"""Batch runs as an operator handles them: planned, started, watched, steered. The command line is thin over it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from app.broker import BATCH_QUEUE, Publisher, create_celery
from app.deployment import Deployment
from app.domain.costs import Room
from app.domain.runs import RunLimits, RunSpec, RunState, UnitState
from app.errors import (
    BrokerUnavailableError,
    CandlefleetError,
    ConfigurationError,
    NodeUnavailableError,
    SpecificationError,
    UnknownStrategyError,
    WrongStateError,
)
from app.operations import Operations
from app.operations_evaluations import build_evaluation, find_markets
from app.processes import Children
from app.runs.planning import Plan, Planner, Source, Stored
from app.runs.specification import Draft
from app.settings import BatchSettings
from app.storage import ranges, runs
from app.storage import strategies as catalogue
from app.storage.engine import driver_of
from app.storage.nodes import count_slots
from app.storage.run_closing import validate_cancelled
from app.storage.runs import Progress, Run, dump_spec
from app.strategies.registry import Registry
from app.tickets import Tickets, send_tickets, wanted

#: Endings of what names a definition file and not a strategy of the catalogue.
FILES = (".toml", ".yaml", ".yml")

#: Seconds a slot may need for a ticket beside its longest unit: a stint of small ones, candles and results.
BESIDE_UNIT_S = 10.0

#: Seconds between two looks for tickets that are missing.
SEND_EVERY_S = 1.0

#: Name of the node that a command runs for itself.
OWN_NODE = "runs"

#: States from which a run can be given another.
OPEN = (RunState.RUNNING, RunState.PAUSED)


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was started, now or before under the same key."""

    run: Run
    is_new: bool


def require_sound(operations: Operations, draft: Draft) -> RunSpec:
    """Return the specification of a draft that nothing is wrong with on its own.

    Raises:
        SpecificationError: something is; names it with everything else that planning finds wrong.
    """
    if draft.spec is not None and not draft.problems:
        return draft.spec
    problems = dict.fromkeys((*draft.problems, *_find_more(operations, draft.spec)))
    raise SpecificationError(draft.source, list(problems))


def _find_more(operations: Operations, spec: RunSpec | None) -> Sequence[str]:
    if spec is None:
        return ()
    try:
        plan(operations, spec)
    except SpecificationError as error:
        return error.problems
    except CandlefleetError:  # such as Postgres that is away: what is wrong without it is said nevertheless
        return ()
    return ()


def plan(operations: Operations, spec: RunSpec) -> Plan:
    """Plan a run; nothing is stored.

    Raises:
        SpecificationError: it cannot be done; names each field, the limit, and how to raise it.
    """
    settings = operations.settings
    spec = with_defaults(spec, settings.batch)
    evaluation = build_evaluation(settings.batch, spec, datetime.now(UTC))
    with operations.reading() as connection:
        symbols = ranges.list_symbols(connection, spec.timeframe)
        matching = [symbol for symbol in symbols if spec.wants(symbol)]
        if evaluation is not None:
            series = find_markets(connection, matching, spec.timeframe, evaluation)
        else:
            series = ranges.count_candles(connection, matching, spec.timeframe, spec.from_time, spec.to_time)
    planner = Planner(Registry(settings.strategies.modules), settings.worker.window, settings.runs.most_units)
    sources, problems = _find_sources(operations, spec)
    planned = planner.plan(spec, sources, Stored(symbols, series), problems)
    return replace(planned, evaluation=evaluation)


def start(operations: Operations, spec: RunSpec) -> Started:
    """Start a run; one whose key was used returns the run that was started with it.

    Raises:
        ConfigurationError: runs are switched off.
        SpecificationError: it cannot be done, or its key was used for another specification.
    """
    if not operations.settings.batch.enabled:
        raise ConfigurationError("batch runs are switched off: CANDLEFLEET_BATCH__ENABLED is false")
    spec = with_defaults(spec, operations.settings.batch)
    known = _find(operations, spec)
    if known is not None:
        return Started(known, is_new=False)
    planned = plan(operations, spec)
    try:
        run = _save(operations, spec, planned)
    except IntegrityError:  # somebody was faster with the same key
        known = _find(operations, spec)
        if known is None:
            raise
        return Started(known, is_new=False)
    _send_first(operations, run)
    return Started(run, is_new=True)


def with_defaults(spec: RunSpec, batch: BatchSettings) -> RunSpec:
    """Return a specification whose limits are those of the settings where it states none."""
    limits = {
        "timeout_ms": batch.timeout_ms,
        "retries": batch.retries,
        "concurrency": batch.max_concurrency,
        "batch_size": batch.batch_size,
    }
    stated = spec.limits.model_dump(include=spec.limits.model_fields_set)
    return spec.model_copy(update={"limits": RunLimits(**{**limits, **stated})})


def load(operations: Operations, run_id: int) -> tuple[Run, Progress]:
    """Load a run and how far it is, both of the same moment.

    Raises:
        UnknownRunError: there is none of that number.
    """
    with operations.reading_once() as connection:
        return runs.load_run(connection, run_id), runs.load_progress(connection, run_id)


def load_newest(operations: Operations, limit: int, offset: int = 0) -> list[tuple[Run, Progress]]:
    """Load the newest runs and how far they are, all of the same moment, after so many that are newer still."""
    with operations.reading_once() as connection:
        found = runs.list_runs(connection, limit, offset)
        return [(run, runs.load_progress(connection, run.id)) for run in found]


def pause(operations: Operations, run_id: int) -> RunState:
    """Stop giving a run work: its slots leave it within a second, between two slices of a unit. Idempotent.

    Raises:
        UnknownRunError: there is none of that number.
        WrongStateError: it has ended.
    """
    return _switch(operations, run_id, RunState.PAUSED, (RunState.RUNNING,))


def resume(operations: Operations, run_id: int) -> RunState:
    """Let a paused run go on. Idempotent; else as `pause`."""
    state = _switch(operations, run_id, RunState.RUNNING, (RunState.PAUSED,))
    _send_now(operations)
    return state


def cancel(operations: Operations, run_id: int) -> RunState:
    """End a run: no unit of it counts from now on, also one that is executed now. Idempotent.

    Raises:
        UnknownRunError: there is none of that number.
        WrongStateError: it is complete.
    """
    with operations.changing() as connection:
        runs.load_run(connection, run_id)
        if runs.switch(connection, run_id, RunState.CANCELLED, OPEN):
            runs.cancel_units(connection, run_id)
            validate_cancelled(driver_of(connection), run_id)
        return _require(runs.load_run(connection, run_id), RunState.CANCELLED)


def retry_failed(operations: Operations, run_id: int) -> int:
    """Execute the failed units of a run again, with all of their attempts; return how many.

    Raises:
        UnknownRunError: there is none of that number.
        WrongStateError: details of the run were deleted.
    """
    with operations.changing() as connection:
        runs.load_run(connection, run_id)
        count = runs.retry_units(connection, run_id)
        if count:
            runs.switch(connection, run_id, RunState.RUNNING, tuple(RunState))
    if count:
        _send_now(operations)
    return count


class Watch:
    """Looks at a run until it ends, and does what maintenance does for it: a laptop needs no process of its own.

    Args:
        operations: of the deployment.
        run_id: of the run.
    """

    def __init__(self, operations: Operations, run_id: int) -> None:
        self._operations = operations
        self._run_id = run_id
        self._publisher = Publisher(create_celery(operations.settings), Room(1))
        self._tickets = Tickets(self._publisher, operations.settings.silence)
        self._sent_at = -math.inf

    def look(self, now: datetime) -> Progress:
        """Return how far the run is; send the tickets that are missing, every SEND_EVERY_S at most.

        Raises:
            StorageUnavailableError: Postgres is away.
        """
        with self._operations.changing() as connection:
            runs.close_finished(connection)
            if now.timestamp() - self._sent_at >= SEND_EVERY_S:
                self._sent_at = now.timestamp()
                with suppress(BrokerUnavailableError):  # they are missing until Redis is back
                    self._tickets.send_missing(connection, now)
            return runs.load_progress(connection, self._run_id)

    def close(self) -> None:
        """Give the connection back."""
        self._publisher.close()


@contextmanager
def with_a_node(operations: Operations) -> Iterator[Children | None]:
    """Run a worker node for batch runs as long as this lasts, unless one is alive; hand it out if it was needed."""
    settings = operations.settings
    with operations.reading() as connection:
        slots = count_slots(connection, settings.silence, [BATCH_QUEUE])
    if slots:
        yield None
        return
    count = settings.worker.slots or os.cpu_count() or 1
    logs = Path(settings.home) / "logs"
    with Children(logs, Deployment(settings).environment) as children:
        children.start(OWN_NODE, "app.cli.main", "worker", "--queues", BATCH_QUEUE, "--concurrency", str(count))
        yield children


def require_alive(node: Children) -> None:
    """Complain if a node of our own has ended.

    Raises:
        NodeUnavailableError: it has; with the end of its log.
    """
    if node.dead():
        raise NodeUnavailableError(f"the worker node for runs ended:\n{node.tail(OWN_NODE)}")


def _find_sources(operations: Operations, spec: RunSpec) -> tuple[list[Source], list[str]]:
    """Return the strategies that a run names, and what is wrong with their names."""
    sources, problems = list[Source](), list[str]()
    for name in spec.strategies:
        try:
            sources += _find_source(operations, name)
        except (UnknownStrategyError, ConfigurationError) as error:
            problems.append(f"strategies: {error}")
    return sources, problems


def _find_source(operations: Operations, name: str) -> list[Source]:
    if name.endswith(FILES):
        return [Source(each.definition, file=name) for each in operations.read_definitions(Path(name))]
    with operations.reading() as connection:
        strategy = catalogue.load_strategy(connection, name)
    return [Source(strategy.definition, strategy.id, strategy.revision)]


def _find(operations: Operations, spec: RunSpec) -> Run | None:
    if spec.key is None:
        return None
    with operations.reading() as connection:
        known = runs.find_run(connection, spec.key)
    if known is not None and dump_spec(known.spec) != dump_spec(spec):
        problem = f"key: {spec.key!r} was used for run {known.id}, whose specification is another"
        raise SpecificationError("specification", [problem])
    return known


def _save(operations: Operations, spec: RunSpec, planned: Plan) -> Run:
    settings = operations.settings
    longest_ms = _longest_ms(spec, planned)
    with operations.changing() as connection:
        run_id = runs.save_run(
            connection,
            spec,
            variants_=planned.variants,
            units_=planned.units,
            series=planned.series,
            warnings=planned.warnings,
            window=planned.window,
            hard_limit_s=longest_ms / 1000 + settings.worker.hard_grace_s + BESIDE_UNIT_S,
            evaluation=planned.evaluation,
        )
        return runs.load_run(connection, run_id)


def _longest_ms(spec: RunSpec, planned: Plan) -> int:
    """Return what a slot may need between two looks at the time: a unit, or a market with all of its variants."""
    if planned.evaluation is not None:
        return spec.limits.timeout_ms * len(planned.variants)
    return max(spec.limits.unit_timeout_ms(unit.candles) for unit in planned.units)


def _send_first(operations: Operations, run: Run) -> None:
    """Send the tickets of a new run; without Redis they are sent by whoever watches, or by maintenance."""
    with operations.reading() as connection:
        slots = count_slots(connection, operations.settings.silence, [BATCH_QUEUE])
    numbers = range(wanted(run.spec.limits.concurrency, slots, run.units))
    with suppress(BrokerUnavailableError), operations.publishing() as publisher:
        send_tickets(publisher, run.id, numbers, run.hard_limit_s)


def _send_now(operations: Operations) -> None:
    with suppress(BrokerUnavailableError), operations.reading() as connection, operations.publishing() as publisher:
        tickets = Tickets(publisher, operations.settings.silence, patience=timedelta())
        tickets.send_missing(connection, datetime.now(UTC))


def _switch(operations: Operations, run_id: int, state: RunState, allowed: Sequence[RunState]) -> RunState:
    with operations.changing() as connection:
        runs.load_run(connection, run_id)
        runs.switch(connection, run_id, state, allowed)
        return _require(runs.load_run(connection, run_id), state)


def _require(run: Run, wanted: RunState) -> RunState:
    if run.state is not wanted:
        raise WrongStateError(f"run {run.id} is {run.state}: it has ended and cannot become {wanted}")
    return wanted


def list_failures(operations: Operations, run_id: int, limit: int) -> list[dict[str, object]]:
    """List units of a run that failed, and why."""
    with operations.reading() as connection:
        return runs.list_units(connection, run_id, UnitState.FAILED, limit)
