"""Batch runs, their units, and what units leave behind."""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.domain.runs import RunKind, RunState, UnitState
from app.runs.shapes import REASONS
from app.storage.schema.columns import counter, metadata, moment, one_of, required

#: Batch runs.
runs = Table(
    "runs",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    required("kind", Text()),
    required("state", Text()),
    Column("key", Text),
    required("spec", JSONB()),
    required("timeframe", Text()),
    moment("from_time"),
    moment("to_time"),
    required("window", Integer()),
    required("units", Integer()),
    required("candles", BigInteger()),
    required("hard_limit_s", Double()),
    required("series", JSONB()),
    required("warnings", JSONB()),
    moment("created_at", default=True),
    moment("finished_at", nullable=True),
    Column("selection", JSONB),
    Column("validation", JSONB),
    UniqueConstraint("key"),
    one_of("kind", [word.value for word in RunKind]),
    one_of("state", [word.value for word in RunState]),
)
Index("ix_runs_running", runs.c.id, postgresql_where=text(f"state = '{RunState.RUNNING}'"))

#: The strategies of a run, each with one set of params.
variants = Table(
    "variants",
    metadata,
    required("run_id", Integer()),
    required("number", Integer()),
    required("strategy", Text()),
    Column("strategy_id", Integer),
    Column("revision", Integer),
    required("implementation", Text()),
    required("params", JSONB()),
    required("trading", JSONB()),
    required("fingerprint", Text()),
    Column("category", Text, nullable=False, server_default=text("'general'")),
    PrimaryKeyConstraint("run_id", "number"),
)

#: The queue of a run's units, and what came of them. A claim is somebody's as long as the advisory lock of its ticket
#: is held; a result counts only for the claim it was computed under.
units = Table(
    "units",
    metadata,
    required("run_id", Integer()),
    required("number", Integer()),
    required("variant", Integer()),
    required("symbol", Text()),
    required("candles", Integer()),
    Column("state", Text, nullable=False, server_default=text(f"'{UnitState.PENDING}'")),
    counter("attempts", SmallInteger()),
    Column("claim", BigInteger),
    Column("ticket", Integer),
    moment("started_at", nullable=True),
    moment("finished_at", nullable=True),
    Column("worker", Text),
    Column("elapsed_ms", Double),
    Column("cpu_ms", Double),
    Column("memory_mb", Integer),
    Column("metrics", JSONB),
    Column("error_class", Text),
    Column("error", Text),
    PrimaryKeyConstraint("run_id", "number"),
    one_of("state", [word.value for word in UnitState]),
)
Index("ix_units_pending", units.c.run_id, units.c.number, postgresql_where=text(f"state = '{UnitState.PENDING}'"))

#: Closed trades of each unit, in order, as columns: thousands of rows would take longer to store than to compute. The
#: reason is a place in `app.runs.shapes.REASONS`.
unit_trade_columns = Table(
    "unit_trade_columns",
    metadata,
    required("run_id", Integer()),
    required("unit", Integer()),
    required("opened_ms", ARRAY(BigInteger)),
    required("closed_ms", ARRAY(BigInteger)),
    required("side", ARRAY(SmallInteger)),
    required("quantity", ARRAY(Double)),
    required("entry_price", ARRAY(Double)),
    required("exit_price", ARRAY(Double)),
    required("fees", ARRAY(Double)),
    required("profit", ARRAY(Double)),
    required("reason", ARRAY(SmallInteger)),
    PrimaryKeyConstraint("run_id", "unit"),
)

#: The same for whoever asks in SQL: a row a trade, numbered from 0 in each unit.
UNIT_TRADES = f"""
    CREATE VIEW unit_trades AS
    SELECT c.run_id, c.unit, (t.place - 1)::int AS number, to_timestamp(t.opened_ms / 1000.0) AS opened_at,
           to_timestamp(t.closed_ms / 1000.0) AS closed_at, t.side, t.quantity, t.entry_price, t.exit_price, t.fees,
           t.profit, ('{{{",".join(REASONS)}}}'::text[])[t.reason + 1] AS reason
    FROM unit_trade_columns c
    CROSS JOIN LATERAL unnest(c.opened_ms, c.closed_ms, c.side, c.quantity, c.entry_price, c.exit_price, c.fees,
                              c.profit, c.reason) WITH ORDINALITY
        AS t(opened_ms, closed_ms, side, quantity, entry_price, exit_price, fees, profit, reason, place)
"""  # noqa: S608 - words of our own
event.listen(metadata, "after_create", DDL(UNIT_TRADES))  # type: ignore[no-untyped-call]  # SQLAlchemy's own

#: What each unit's strategy said, where its action changed: open times in epoch ms and what holds from there on.
unit_signals = Table(
    "unit_signals",
    metadata,
    required("run_id", Integer()),
    required("unit", Integer()),
    required("opened_ms", ARRAY(BigInteger)),
    required("action", ARRAY(SmallInteger)),
    required("strength", ARRAY(Double)),
    PrimaryKeyConstraint("run_id", "unit"),
)

#: The curve of each unit, sampled: close times in epoch ms, equity in quote currency, how far below its peak, close.
unit_equity = Table(
    "unit_equity",
    metadata,
    required("run_id", Integer()),
    required("unit", Integer()),
    required("closed_ms", ARRAY(BigInteger)),
    required("equity", ARRAY(Double)),
    required("drawdown_percent", ARRAY(Double)),
    required("close", ARRAY(Double)),
    PrimaryKeyConstraint("run_id", "unit"),
)

# compressing such numbers wins a third of the space, and takes Postgres three times as long as storing them
for _table in (unit_trade_columns, unit_signals, unit_equity):
    _names = [column.name for column in _table.columns if isinstance(column.type, ARRAY)]
    _changes = ", ".join(f"ALTER COLUMN {name} SET STORAGE EXTERNAL" for name in _names)
    event.listen(_table, "after_create", DDL(f"ALTER TABLE {_table.name} {_changes}"))  # type: ignore[no-untyped-call]
