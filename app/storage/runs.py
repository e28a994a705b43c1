"""Runs as operators handle them: written once, steered by their state, counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, null, select, text, update

from app.domain.runs import (
    ENDED,
    Evaluation,
    Method,
    RunKind,
    RunSpec,
    RunState,
    Series,
    SliceState,
    Unit,
    UnitState,
    Variant,
    cut_slices,
)
from app.domain.selection import Reason
from app.errors import UnknownRunError, WrongStateError
from app.storage.copying import build_rows, copy_rows, ints, word
from app.storage.engine import driver_of
from app.storage.run_closing import close_run
from app.storage.run_deletion import is_trimmed
from app.storage.schema import runs, slices, units, variants
from app.storage.slices import retry_failed, save_slices

#: Units written in one COPY.
_ROWS = 10_000

_COUNTS = text("""
    SELECT state, count(*) AS units, coalesce(sum(candles), 0) AS candles, coalesce(sum(elapsed_ms), 0) AS elapsed_ms,
           coalesce(sum(cpu_ms), 0) AS cpu_ms, coalesce(max(memory_mb), 0) AS memory_mb
    FROM units WHERE run_id = :run GROUP BY state
""")
#: Of an evaluate run, whose units are cells of its slices: what is not pending, cancelled or failed has succeeded. Some
#: of these had nobody asked: the market was stale, or its history too short.
_EVALUATION_COUNTS = text("""
    WITH sized AS (SELECT *, cardinality(symbols) * cardinality(variants) AS size FROM slices WHERE run_id = :run),
         counted AS (SELECT coalesce(sum(size) FILTER (WHERE state = 'pending'), 0) AS pending,
                            coalesce(sum(size) FILTER (WHERE state = 'cancelled'), 0) AS cancelled,
                            coalesce(sum(elapsed_ms), 0) AS elapsed_ms, coalesce(sum(cpu_ms), 0) AS cpu_ms,
                            coalesce(max(memory_mb), 0) AS memory_mb,
                            (SELECT count(*) FROM evaluation_errors WHERE run_id = :run) AS failed,
                            (SELECT coalesce(sum(cardinality(array_positions(status, CAST(2 AS smallint)))
                                                 + cardinality(array_positions(status, CAST(3 AS smallint)))), 0)
                             FROM evaluations WHERE run_id = :run) AS unasked
                     FROM sized)
    SELECT c.*, r.units - c.pending - c.cancelled - c.failed AS succeeded, r.selection->'rejected' AS rejected
    FROM counted c, runs r WHERE r.id = :run
""")
#: Of a run, those that a slot works on; a lock of two numbers has `objsubid` 2.
_TICKETS = text("""
    SELECT objid::int FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = CAST(:run AS oid)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
_OPEN = text("""
    SELECT r.id, r.spec, r.hard_limit_s, (SELECT count(*) FROM units u WHERE u.run_id = r.id AND u.state = 'pending')
                                       + (SELECT count(*) FROM slices s WHERE s.run_id = r.id AND s.state = 'pending')
    FROM runs r WHERE r.state = 'running' ORDER BY r.id
""")
_FINISHED = text("""
    SELECT id FROM runs r WHERE state = 'running'
      AND NOT EXISTS (SELECT FROM units u WHERE u.run_id = r.id AND u.state = 'pending')
      AND NOT EXISTS (SELECT FROM slices s WHERE s.run_id = r.id AND s.state = 'pending')
""")
_UNITS = text("""
    SELECT u.number, v.strategy, v.params, u.symbol, u.candles, u.state, u.attempts, u.elapsed_ms, u.memory_mb,
           u.worker, u.metrics, u.error_class, u.error
    FROM units u JOIN variants v ON v.run_id = u.run_id AND v.number = u.variant
    WHERE u.run_id = :run AND (CAST(:state AS text) IS NULL OR u.state = :state)
    ORDER BY CAST(u.metrics->>'total_return_percent' AS double precision) DESC NULLS LAST, u.number
    LIMIT :limit OFFSET :offset
""")
#: Of late only: strategies, candles and machines change. Candle by candle costs some hundred times what blocks do.
_COSTS = text("""
    SELECT v.implementation, sum(u.elapsed_ms) / sum(u.candles)
    FROM (SELECT u.* FROM units u JOIN runs r ON r.id = u.run_id
          WHERE u.state = 'succeeded' AND r.spec->>'method' = :method ORDER BY u.run_id DESC LIMIT 10000) u
    JOIN variants v ON v.run_id = u.run_id AND v.number = u.variant
    WHERE v.implementation = ANY(:implementations) GROUP BY v.implementation
""")
_EVALUATION_COSTS = text("""
    SELECT v.implementation, sum(s.elapsed_ms) / sum(cardinality(s.symbols) * cardinality(s.variants))
    FROM (SELECT s.* FROM slices s JOIN runs r ON r.id = s.run_id
          WHERE s.state = 'done' AND r.spec->>'method' = :method ORDER BY s.run_id DESC LIMIT 1000) s
    JOIN variants v ON v.run_id = s.run_id AND v.number = ANY(s.variants)
    WHERE v.implementation = ANY(:implementations) GROUP BY v.implementation
""")


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is stored."""

    id: int
    state: RunState
    key: str | None
    spec: RunSpec
    from_time: datetime
    """Of the candles that count, the earliest open time; of an evaluate run that of the oldest that is not stale."""
    to_time: datetime
    """Open time of the first candle that does not count."""
    units: int
    candles: int
    window: int
    hard_limit_s: float
    series: Sequence[Series]
    warnings: Sequence[str]
    created_at: datetime
    finished_at: datetime | None
    selection: dict[str, Any] | None
    """Of an evaluate run: its rules, and what came of them once it is complete."""
    validation: dict[str, Any] | None
    """What was measured and checked, once it is complete."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    state: RunState
    units: dict[str, int]
    """By state; every state is named."""
    candles: int
    """That a strategy answered: of an evaluate run one for each unit that succeeded and was asked."""
    elapsed_ms: float
    """That slots spent on units that ended."""
    cpu_ms: float
    memory_mb: int
    """Most that a slot held when it ended a unit; what slots share is counted in proportion."""
    slots: int
    """That work on it now."""
    is_trimmed: bool
    """Whether it has ended, and details of it were deleted since."""
    candles_pending: int
    """Of units that are not done."""

    @property
    def total(self) -> int:
        """All units."""
        return sum(self.units.values())

    @property
    def ended(self) -> int:
        """Units that are not pending."""
        return self.total - self.units[UnitState.PENDING]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A running run, as far as its tickets are concerned."""

    id: int
    concurrency: int
    hard_limit_s: float
    pending: int
    """Units or slices that are not done."""


def save_run(
    connection: Connection,
    spec: RunSpec,
    *,
    variants_: Sequence[Variant],
    units_: Sequence[Unit],
    series: Sequence[Series],
    warnings: Sequence[str],
    window: int,
    hard_limit_s: float,
    evaluation: Evaluation | None = None,
) -> int:
    """Write a run with all of its units, in the caller's transaction; return its id."""
    since, until = (evaluation.since, evaluation.until) if evaluation else (spec.from_time, spec.to_time)
    values = {
        **{"kind": spec.kind.value, "state": RunState.RUNNING.value, "key": spec.key},
        **{"spec": dump_spec(spec), "timeframe": spec.timeframe.value, "window": window, "hard_limit_s": hard_limit_s},
        **{"from_time": since, "to_time": until, "warnings": list(warnings)},
        **{"units": len(units_), "candles": sum(unit.candles for unit in units_), "series": [list(s) for s in series]},
        "selection": evaluation and {"rules": evaluation.rules.model_dump(mode="json")},
    }
    run_id = int(connection.execute(insert(runs).values(**values).returning(runs.c.id)).scalar_one())
    rows = [{"run_id": run_id, "number": n, **each.model_dump(mode="json")} for n, each in enumerate(variants_)]
    connection.execute(insert(variants), rows)
    if evaluation is not None:
        symbols = [each.symbol for each in series]
        save_slices(driver_of(connection), run_id, cut_slices(symbols, len(rows), spec.limits.batch_size))
        return run_id
    columns = ("run_id", "number", "variant", "symbol", "candles")
    copy_rows(driver_of(connection), "units", columns, (_unit_row(run_id, unit) for unit in units_))
    return run_id


def _unit_row(run_id: int, unit: Unit) -> bytes:
    numbers = ints(run_id), ints(unit.number), ints(unit.variant)
    return build_rows(1, (*numbers, word(unit.symbol), ints(unit.candles)))


def dump_spec(spec: RunSpec) -> dict[str, Any]:
    """Return a specification as plain JSON values, under the keys that people write."""
    return spec.model_dump(mode="json", by_alias=True)


def load_run(connection: Connection, run_id: int) -> Run:
    """Load a run.

    Raises:
        UnknownRunError: there is none of that number.
    """
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        raise _unknown(run_id)
    return _read(row)


def _unknown(run_id: int) -> UnknownRunError:
    return UnknownRunError(f"no run {run_id}: 'candlefleet runs list' lists the newest")


def find_run(connection: Connection, key: str) -> Run | None:
    """Load the run that was started with a key; None when there is none."""
    row = connection.execute(select(runs).where(runs.c.key == key)).one_or_none()
    return None if row is None else _read(row)


def list_runs(connection: Connection, limit: int, offset: int = 0) -> list[Run]:
    """Load the newest runs, after so many that are newer still."""
    newest = select(runs).order_by(runs.c.id.desc()).limit(limit).offset(offset)
    return [_read(row) for row in connection.execute(newest)]


def load_progress(connection: Connection, run_id: int) -> Progress:
    """Count the units of a run.

    Raises:
        UnknownRunError: there is none of that number.
    """
    run = connection.execute(select(runs.c.state, runs.c.kind).where(runs.c.id == run_id)).one_or_none()
    if run is None:
        raise _unknown(run_id)
    state, trimmed = RunState(run.state), run.state in ENDED and is_trimmed(connection, run_id)
    if run.kind == RunKind.EVALUATE:
        return _load_evaluation_progress(connection, run_id, state, is_trimmed=trimmed)
    rows = {row.state: row for row in connection.execute(_COUNTS, {"run": run_id})}
    done = [row for name, row in rows.items() if name in (UnitState.SUCCEEDED, UnitState.FAILED)]
    return Progress(
        state=state,
        units={each.value: rows[each].units if each in rows else 0 for each in UnitState},
        candles=sum(row.candles for row in done if row.state == UnitState.SUCCEEDED),
        elapsed_ms=sum(row.elapsed_ms for row in done),
        cpu_ms=sum(row.cpu_ms for row in done),
        memory_mb=max((row.memory_mb for row in done), default=0),
        slots=len(load_held_tickets(connection, run_id)),
        is_trimmed=trimmed,
        candles_pending=rows[UnitState.PENDING].candles if UnitState.PENDING in rows else 0,
    )


def _load_evaluation_progress(connection: Connection, run_id: int, state: RunState, *, is_trimmed: bool) -> Progress:
    row = connection.execute(_EVALUATION_COUNTS, {"run": run_id}).one()
    # without its answers, what is kept with the run says the same
    known = row.rejected or {} if is_trimmed else {}
    unasked = known.get(Reason.STALE, 0) + known.get(Reason.SHORT_HISTORY, 0) if is_trimmed else row.unasked
    return Progress(
        state=state,
        units={each.value: int(getattr(row, each.value)) for each in UnitState},
        candles=int(row.succeeded - unasked),
        elapsed_ms=row.elapsed_ms,
        cpu_ms=row.cpu_ms,
        memory_mb=row.memory_mb,
        slots=len(load_held_tickets(connection, run_id)),
        is_trimmed=is_trimmed,
        candles_pending=int(row.pending),
    )


def list_units(
    connection: Connection, run_id: int, state: UnitState | None, limit: int, offset: int = 0
) -> list[dict[str, Any]]:
    """List units of a run with their figures, the best return first."""
    values = {"run": run_id, "state": None if state is None else state.value, "limit": limit, "offset": offset}
    return [dict(row) for row in connection.execute(_UNITS, values).mappings()]


def load_costs(
    connection: Connection, kind: RunKind, method: Method, implementations: Iterable[str]
) -> dict[str, float]:
    """Return what an evaluation cost in runs of late, milliseconds by implementation; those never seen are absent.

    Args:
        connection: to Postgres.
        kind: of the run; a backtest evaluates each candle of its units, an evaluate run each unit once.
        method: of the run.
        implementations: of its strategies.
    """
    values = {"implementations": list(implementations), "method": method.value}
    rows = connection.execute(_COSTS if kind is RunKind.BACKTEST else _EVALUATION_COSTS, values)
    return {name: float(cost) for name, cost in rows}


def switch(connection: Connection, run_id: int, state: RunState, allowed: Sequence[RunState]) -> bool:
    """Give a run another state if it has one of those; tell whether it had."""
    finished = func.clock_timestamp() if state is RunState.CANCELLED else None
    changed = connection.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state.in_([each.value for each in allowed]))
        .values(state=state.value, finished_at=finished)
    )
    return bool(changed.rowcount)


def cancel_units(connection: Connection, run_id: int) -> int:
    """End every pending unit of a run, those included that are executed now; return how many."""
    ended = {"state": SliceState.CANCELLED.value, "claim": None, "ticket": None}
    waiting = slices.c.run_id == run_id, slices.c.state == SliceState.PENDING.value
    connection.execute(update(slices).where(*waiting).values(**ended))
    pending = units.c.run_id == run_id, units.c.state == UnitState.PENDING.value
    values = {"state": UnitState.CANCELLED.value, "claim": None, "ticket": None, "finished_at": func.clock_timestamp()}
    return connection.execute(update(units).where(*pending).values(**values)).rowcount


def retry_units(connection: Connection, run_id: int) -> int:
    """Make the failed units of a run pending again, so that its validation does not hold any more; return how many.

    Raises:
        WrongStateError: details of the run were deleted.
    """
    # first of all: the details of the run might be deleted at this moment
    connection.execute(select(runs.c.id).where(runs.c.id == run_id).with_for_update())
    if load_progress(connection, run_id).is_trimmed:
        raise WrongStateError(f"run {run_id}: its details were deleted, so no unit joins them: start a new run")
    count = retry_failed(driver_of(connection), run_id)
    failed = units.c.run_id == run_id, units.c.state == UnitState.FAILED.value
    values = {"state": UnitState.PENDING.value, "attempts": 0, "error_class": None, "error": None, "finished_at": None}
    count += connection.execute(update(units).where(*failed).values(**values)).rowcount
    if count:
        connection.execute(update(runs).where(runs.c.id == run_id).values(validation=null()))
    return count


def load_open(connection: Connection) -> list[OpenRun]:
    """Load the running runs."""
    return [
        OpenRun(number, spec["limits"]["concurrency"], hard_limit_s, pending)
        for number, spec, hard_limit_s, pending in connection.execute(_OPEN)
    ]


def load_held_tickets(connection: Connection, run_id: int) -> set[int]:
    """Return the tickets of a run that slots work on now."""
    return set(connection.execute(_TICKETS, {"run": run_id}).scalars())


def close_finished(connection: Connection) -> int:
    """Complete the running runs that have no pending unit left; return how many."""
    finished = connection.execute(_FINISHED).scalars().all()
    return sum(close_run(driver_of(connection), run_id) for run_id in finished)


def _read(row: Row[Any]) -> Run:
    sizes = ("id", "key", "units", "candles", "window", "hard_limit_s")
    shown = (*sizes, "from_time", "to_time", "warnings", "created_at", "finished_at", "selection", "validation")
    values = {name: getattr(row, name) for name in shown}
    series = [Series(*each) for each in row.series]
    return Run(**values, state=RunState(row.state), spec=RunSpec.model_validate(row.spec), series=series)
