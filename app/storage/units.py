"""The queue of units as slots use it: claimed in Postgres, recorded once.

A slot that works on a ticket holds an advisory lock on (run, ticket) for as long as its connection lives. What it
claims carries the ticket and a claim, a random number of this very stint. A unit is free when nobody has claimed it,
or when the one who did is gone: its lock is. A result is recorded only under the claim it was computed for, so that a
unit counts once whoever else was at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from psycopg import Connection as DriverConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from app.domain.candles import Timeframe
from app.domain.runs import Method, RunKind, RunLimits, RunState, Unit, UnitState, Variant
from app.runs.report.sampling import sample
from app.runs.shapes import Curve, IntArray, Trades
from app.storage.arrays import FLOAT8, INT2, INT8
from app.storage.claiming import adopt_statement, release_statement
from app.storage.copying import array, build_rows, copy_rows, ints
from app.storage.run_closing import close_run
from app.storage.slices import release_slices

# What a stint commits waits for no disk: after a crash of Postgres its last half second of work is pending again, and
# done again. What ends a run waits, and what came before it is then on the disk as well.
_LOCK = """
    SELECT CASE WHEN pg_try_advisory_lock(%(run)s, %(ticket)s)
                THEN set_config('synchronous_commit', 'off', false) END IS NOT NULL
"""
_WAIT_AGAIN = "RESET synchronous_commit"
_UNLOCK = "SELECT pg_advisory_unlock(%(run)s, %(ticket)s)"

# the newest dispatch is found along the primary key
_STATE = """
    SELECT state, coalesce((SELECT created_at > clock_timestamp() - %(live_within)s
                            FROM dispatches ORDER BY id DESC LIMIT 1), false)
    FROM runs WHERE id = %(run)s
"""

# a quarter of what is free at most: the last slots of a run end at about the same time. Whatever is still locked is
# being claimed in this moment, by somebody else
_CLAIM = """
    WITH open AS (SELECT number FROM units WHERE run_id = %(run)s AND state = 'pending' AND claim IS NULL
                  ORDER BY number LIMIT 4 * %(most)s)
    UPDATE units u SET claim = %(claim)s, ticket = %(ticket)s, started_at = clock_timestamp(), worker = %(worker)s
    FROM (SELECT run_id, number FROM units
          WHERE run_id = %(run)s AND state = 'pending' AND claim IS NULL
          ORDER BY number LIMIT greatest(1, (SELECT count(*) / 4 FROM open)) FOR UPDATE SKIP LOCKED) AS free
    WHERE u.run_id = free.run_id AND u.number = free.number
      AND EXISTS (SELECT FROM runs WHERE id = %(run)s AND state = 'running')
    RETURNING u.number, u.variant, u.symbol, u.candles, u.attempts
"""

_ADOPT = adopt_statement("units", "w.number, w.variant, w.symbol, w.candles, w.attempts")
_RELEASE = release_statement("units")

_RECORD = """
    UPDATE units SET state = %(state)s, attempts = %(attempt)s, claim = NULL, ticket = NULL,
                     elapsed_ms = %(elapsed_ms)s, cpu_ms = %(cpu_ms)s, memory_mb = %(memory_mb)s, metrics = %(metrics)s,
                     error_class = %(error_class)s, error = %(error)s,
                     finished_at = CASE WHEN %(state)s <> 'pending' THEN clock_timestamp() END
    WHERE run_id = %(run)s AND number = %(number)s AND state = 'pending' AND claim = %(claim)s
    RETURNING number
"""

_RUN = """
    SELECT kind, state, timeframe, from_time, to_time, "window", hard_limit_s, spec,
           (SELECT count(*) FROM variants WHERE run_id = id) AS variants
    FROM runs WHERE id = %(run)s
"""
_VARIANT = "SELECT * FROM variants WHERE run_id = %(run)s AND number = %(number)s"


@dataclass(frozen=True, slots=True)
class Stint:
    """A slot's work on one ticket: what its claims carry."""

    run: int
    ticket: int
    claim: int
    worker: str

    @property
    def values(self) -> dict[str, Any]:
        """As parameters of a statement."""
        return {"run": self.run, "ticket": self.ticket, "claim": self.claim, "worker": self.worker}


class Claimed(NamedTuple):
    """A unit that this slot may execute."""

    unit: Unit
    attempt: int
    """Which one this is, from 1."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a slot needs to know of a run."""

    id: int
    kind: RunKind
    state: RunState
    timeframe: Timeframe
    from_time: datetime
    """Open time of the first candle that counts; the latest candle of an evaluate run may not be older."""
    to_time: datetime
    window: int
    """Candles that a strategy sees."""
    hard_limit_s: float
    method: Method
    limits: RunLimits
    variants: int


class Results(NamedTuple):
    """What a unit that succeeded leaves behind."""

    metrics: dict[str, Any]
    trades: Trades
    curve: Curve
    opened_ms: IntArray
    """Open times of the candles at which the action changed, the first of the range included, epoch ms."""
    action: Any
    """(n,) int8 at these."""
    strength: Any
    """(n,) float64 at these."""


@dataclass(frozen=True, slots=True)
class UnitEnd:
    """How an attempt at a unit ended."""

    number: int
    state: UnitState
    """Pending: it is tried again."""
    attempt: int
    elapsed_ms: float = 0.0
    cpu_ms: float = 0.0
    memory_mb: int = 0
    error_class: str | None = None
    error: str | None = None
    results: Results | None = None


def take_ticket(driver: DriverConnection[Any], stint: Stint) -> bool:
    """Lock a ticket until it is given back or the connection ends; False when somebody else works on it.

    While it is locked, commits of this connection do not wait for the disk.
    """
    row = driver.execute(_LOCK, stint.values).fetchone()
    return bool(row and row[0])


def give_back_ticket(driver: DriverConnection[Any], stint: Stint) -> None:
    """Give back what was claimed and not executed, end the run if nothing is left of it, and unlock the ticket."""
    driver.execute(_RELEASE, stint.values)
    release_slices(driver, stint.values)
    driver.execute(_UNLOCK, stint.values)
    driver.execute(_WAIT_AGAIN)
    close_run(driver, stint.run)


def load_run(driver: DriverConnection[Any], run: int) -> StoredRun | None:
    """Load a run; None when there is none."""
    row = _one(driver, _RUN, {"run": run})
    if row is None:
        return None
    limits, method = RunLimits(**row["spec"]["limits"]), Method(row["spec"]["method"])
    kind, state = RunKind(row["kind"]), RunState(row["state"])
    range_ = (Timeframe(row["timeframe"]), row["from_time"], row["to_time"])
    return StoredRun(run, kind, state, *range_, row["window"], row["hard_limit_s"], method, limits, row["variants"])


class Sight(NamedTuple):
    """What a slot looks at now and then while it works on a run."""

    state: RunState
    is_live: bool
    """Whether a candle was dispatched a moment ago: live jobs need Postgres, too."""


def load_sight(driver: DriverConnection[Any], run: int, live_within: timedelta) -> Sight | None:
    """Return how a run stands, and what is going on beside it; None when there is no such run."""
    row = driver.execute(_STATE, {"run": run, "live_within": live_within}, prepare=True).fetchone()
    return None if row is None else Sight(RunState(row[0]), row[1])


def load_variant(driver: DriverConnection[Any], run: int, number: int) -> Variant:
    """Load a variant of a run.

    Raises:
        LookupError: there is none of that number.
    """
    row = _one(driver, _VARIANT, {"run": run, "number": number})
    if row is None:
        raise LookupError(f"run {run} has no variant {number}")
    return Variant(**{name: row[name] for name in Variant.model_fields})


def _one(driver: DriverConnection[Any], query: str, values: dict[str, Any]) -> dict[str, Any] | None:
    with driver.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchone()


def claim_units(driver: DriverConnection[Any], stint: Stint, most: int) -> list[Claimed]:
    """Claim the next units of a run that nobody has claimed; none when it does not run."""
    rows = driver.execute(_CLAIM, {**stint.values, "most": most}, prepare=True).fetchall()
    return sorted(Claimed(Unit(*row[:4]), row[4] + 1) for row in rows)


def adopt_unit(driver: DriverConnection[Any], stint: Stint) -> Claimed | None:
    """Claim a unit whose slot is gone; its attempt is counted already."""
    row = driver.execute(_ADOPT, stint.values, prepare=True).fetchone()
    return None if row is None else Claimed(Unit(*row[:4]), row[4])


def record(driver: DriverConnection[Any], stint: Stint, ends: Sequence[UnitEnd]) -> int:
    """Record how units ended, with all they leave behind, in one transaction; return how many counted.

    What was claimed by somebody else meanwhile, cancelled or recorded, is left as it is.
    """
    with driver.transaction():
        recorded = _record_ends(driver, stint, ends)
        counted = [end for end in ends if end.number in recorded and end.results is not None]
        for table, columns, build in _TABLES:
            rows = [build(stint.run, end.number, end.results) for end in counted if end.results is not None]
            if rows:
                copy_rows(driver, table, ("run_id", "unit", *columns), rows)
    return len(recorded)


def _record_ends(driver: DriverConnection[Any], stint: Stint, ends: Sequence[UnitEnd]) -> set[int]:
    with driver.cursor() as cursor:
        cursor.executemany(_RECORD, [{**stint.values, **_values(end)} for end in ends], returning=True)
        recorded = set()
        while True:
            recorded |= {row[0] for row in cursor.fetchall()}
            if not cursor.nextset():
                return recorded


def _values(end: UnitEnd) -> dict[str, Any]:
    values = {name: getattr(end, name) for name in UnitEnd.__dataclass_fields__ if name != "results"}
    return {**values, "state": end.state.value, "metrics": None if end.results is None else Jsonb(end.results.metrics)}


def _build_trades(run: int, unit: int, results: Results) -> bytes:
    kinds = (INT8, INT8, INT2, FLOAT8, FLOAT8, FLOAT8, FLOAT8, FLOAT8, INT2)
    columns = [getattr(results.trades, name) for name in _TRADE_COLUMNS]
    return _array_row(run, unit, zip(kinds, columns, strict=True))


def _build_signals(run: int, unit: int, results: Results) -> bytes:
    arrays = ((INT8, results.opened_ms), (INT2, results.action), (FLOAT8, results.strength))
    return _array_row(run, unit, arrays)


def _build_curve(run: int, unit: int, results: Results) -> bytes:
    kept = sample(results.curve)
    columns = (kept.times_ms, kept.equity, kept.drawdown_percent, kept.close)
    kinds = (INT8, FLOAT8, FLOAT8, FLOAT8)
    return _array_row(run, unit, [(kind, np.array(column)) for kind, column in zip(kinds, columns, strict=True)])


def _array_row(run: int, unit: int, arrays: Any) -> bytes:
    columns = [array(kind.oid, values.astype(kind.numpy)) for kind, values in arrays]
    return build_rows(1, (ints(run), ints(unit), *columns))


_TRADE_COLUMNS = tuple(field.name for field in fields(Trades))
_TABLES = (
    ("unit_trade_columns", _TRADE_COLUMNS, _build_trades),
    ("unit_signals", ("opened_ms", "action", "strength"), _build_signals),
    ("unit_equity", ("closed_ms", "equity", "drawdown_percent", "close"), _build_curve),
)
