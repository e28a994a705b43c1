"""Every table, declared. Alembic owns the database; a test holds the migrations to this page.

Hot tables carry no foreign keys: their writers insert in an order that makes dangling rows impossible,
and a key check per row would lock the referenced row on every insert.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, JSONB
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeEngine

from app.domain.breakers import BreakerState
from app.domain.decisions import ClosedBy
from app.domain.jobs import DispatchState, OutcomeStatus
from app.domain.orders import ActionState
from app.domain.positions import EventKind, IntentKind, Reason
from app.domain.runs import RunKind, RunState, SliceState, UnitState
from app.domain.strategies import Priority, StrategyStatus
from app.runs.shapes import REASONS

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: Dispatches whose outcomes share a partition. At 500 symbols of 1h candles and 50 strategies that is
#: about eight days and 5 million rows: small enough to drop quickly, large enough to keep few.
PARTITION_SPAN = 100_000

#: How partitions are called: outcomes_p<first dispatch id>.
PARTITION_PREFIX = "outcomes_p"


def _moment(name: str, *, nullable: bool = False, default: bool = False) -> Column[Any]:
    server_default: ColumnElement[object] | None = func.clock_timestamp() if default else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=server_default)


def _required(name: str, kind: TypeEngine[Any]) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _one_of(column: str, words: list[str]) -> CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _counter(name: str, kind: TypeEngine[Any], start: int = 0) -> Column[Any]:
    return Column(name, kind, nullable=False, server_default=text(str(start)))


candles = Table(
    "candles",
    metadata,
    _required("symbol", Text()),
    _required("timeframe", Text()),
    _moment("open_time"),
    _required("open", Double()),
    _required("high", Double()),
    _required("low", Double()),
    _required("close", Double()),
    _required("volume", Double()),
    _counter("revision", Integer()),
    _required("source", Text()),
    _moment("received_at", default=True),
    PrimaryKeyConstraint("symbol", "timeframe", "open_time"),
)

#: What the producer knows of each series: its newest candle, and how often its past was changed.
series = Table(
    "series",
    metadata,
    _required("symbol", Text()),
    _required("timeframe", Text()),
    _moment("last_open_time", nullable=True),
    _counter("rewrites", BigInteger()),
    PrimaryKeyConstraint("symbol", "timeframe"),
)

#: One row: the version of the strategy catalogue, bumped in every transaction that changes it.
catalogue = Table(
    "catalogue",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    _counter("version", BigInteger()),
    CheckConstraint("is_only", name="is_only"),
)

strategies = Table(
    "strategies",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    _required("name", Text()),
    _required("implementation", Text()),
    _required("params", JSONB()),
    _required("symbols", ARRAY(Text())),
    _required("timeframes", ARRAY(Text())),
    _required("priority", Text()),
    _required("category", Text()),
    _required("weight", Double()),
    _required("limits", JSONB()),
    _required("status", Text()),
    _counter("revision", Integer(), start=1),
    Column("provenance", JSONB, nullable=False, server_default=text("'{}'")),
    _moment("created_at", default=True),
    _moment("updated_at", default=True),
    Column("fingerprint", Text),
    Column("trading", JSONB(none_as_null=True)),
    _moment("trading_since", nullable=True),
    UniqueConstraint("name"),
    _one_of("priority", [word.value for word in Priority]),
    _one_of("status", [word.value for word in StrategyStatus]),
)

#: What each revision computes; rows never change, so an outcome can always be computed again. A fingerprint that nobody
#: took is filled in later.
strategy_revisions = Table(
    "strategy_revisions",
    metadata,
    Column("strategy_id", Integer, ForeignKey("strategies.id"), nullable=False),
    _required("revision", Integer()),
    _required("implementation", Text()),
    _required("params", JSONB()),
    _moment("created_at", default=True),
    Column("fingerprint", Text),
    PrimaryKeyConstraint("strategy_id", "revision"),
)

#: What the gate was asked about strategies, and what it said; and who enabled one that it rejected.
verifications = Table(
    "verifications",
    metadata,
    Column("id", Text, primary_key=True),
    _required("strategy", Text()),
    _required("implementation", Text()),
    _required("params", JSONB()),
    _required("limits", JSONB()),
    _required("symbols", ARRAY(Text())),
    _required("timeframes", ARRAY(Text())),
    _required("fingerprint", Text()),
    _moment("asked_at", default=True),
    _moment("started_at", nullable=True),
    _moment("finished_at", nullable=True),
    Column("ran_on", Text),
    Column("verdict", Text),
    Column("report", JSONB),
    Column("strategy_id", Integer),
    Column("revision", Integer),
    _moment("forced_at", nullable=True),
    Column("forced_by", Text),
    Column("forced_reason", Text),
    _one_of("verdict", ["passed", "rejected"]),
)
Index("ix_verifications_revision", verifications.c.strategy_id, verifications.c.revision)

dispatches = Table(
    "dispatches",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _required("symbol", Text()),
    _required("timeframe", Text()),
    _moment("open_time"),
    _counter("revision", Integer()),
    _required("strategy_ids", ARRAY(Integer())),
    _required("strategy_revisions", ARRAY(Integer())),
    _required("weights", ARRAY(Double())),
    _required("expected", Integer()),
    _counter("landed", Integer()),
    Column("state", Text, nullable=False, server_default=text(f"'{DispatchState.OPEN}'")),
    _moment("deadline"),
    _required("correlation_id", Text()),
    _moment("created_at", default=True),
    _moment("published_at", nullable=True),
    _moment("completed_at", nullable=True),
    _moment("expires_at"),
    _counter("sends", SmallInteger()),
    Column("plan_id", BigInteger),
    UniqueConstraint("symbol", "timeframe", "open_time", "revision"),
    _one_of("state", [word.value for word in DispatchState]),
    postgresql_with={"fillfactor": 80},  # room for `landed` to grow in place
)
# what maintenance looks through: the few dispatches that still miss outcomes
Index("ix_dispatches_unfinished", dispatches.c.id, postgresql_where=text(f"state <> '{DispatchState.COMPLETE}'"))
Index("ix_dispatches_correlation_id", dispatches.c.correlation_id)

#: In which chunks jobs travelled, and why; dispatches with the same plan share a row.
plans = Table(
    "plans",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _required("digest", Text()),
    _required("chunks", JSONB()),
    _moment("created_at", default=True),
    UniqueConstraint("digest"),
)

outcomes = Table(
    "outcomes",
    metadata,
    _required("dispatch_id", BigInteger()),
    _required("strategy_id", Integer()),
    _required("strategy_revision", Integer()),
    _required("status", Text()),
    Column("action", SmallInteger),
    Column("strength", Double),
    Column("edge", Double),
    Column("detail", JSONB),
    Column("error_class", Text),
    Column("error", Text),
    _counter("attempt", SmallInteger()),
    _required("queued_ms", REAL()),
    _required("processing_ms", REAL()),
    _required("worker", Text()),
    _moment("finished_at", default=True),
    PrimaryKeyConstraint("dispatch_id", "strategy_id"),
    _one_of("status", [word.value for word in OutcomeStatus]),
    postgresql_partition_by="RANGE (dispatch_id)",
)

attempts = Table(
    "attempts",
    metadata,
    _required("dispatch_id", BigInteger()),
    _required("strategy_id", Integer()),
    _required("attempt", SmallInteger()),
    _required("status", Text()),
    Column("error_class", Text),
    Column("error", Text),
    _required("processing_ms", REAL()),
    _required("worker", Text()),
    _moment("finished_at", default=True),
    PrimaryKeyConstraint("dispatch_id", "strategy_id", "attempt"),
    _one_of("status", [word.value for word in OutcomeStatus]),
)

decisions = Table(
    "decisions",
    metadata,
    Column("dispatch_id", BigInteger, primary_key=True, autoincrement=False),
    Column("action", SmallInteger),
    _required("score", Double()),
    _required("weight_heard", Double()),
    _required("missing", ARRAY(Integer())),
    _required("closed_by", Text()),
    _required("latency_ms", Double()),
    _moment("decided_at", default=True),
    _one_of("closed_by", [word.value for word in ClosedBy]),
)

#: Strategies whose breaker is not at rest, or was not once.
breakers = Table(
    "breakers",
    metadata,
    Column("strategy_id", Integer, primary_key=True, autoincrement=False),
    _required("state", Text()),
    _counter("failures", Integer()),
    _counter("trips", Integer()),
    _counter("crashes", Integer()),
    _moment("open_until", nullable=True),
    _moment("changed_at", default=True),
    _one_of("state", [word.value for word in BreakerState]),
)

#: Messages that no worker could make sense of; looked at with `candlefleet doctor`, never delivered again.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _required("reason", Text()),
    _required("body", Text()),
    _required("worker", Text()),
    _moment("received_at", default=True),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node", Text, primary_key=True),
    _required("queues", ARRAY(Text())),
    _required("slots", Integer()),
    _counter("busy", Integer()),
    _counter("processed", BigInteger()),
    _counter("errors", BigInteger()),
    _counter("rss_bytes", BigInteger()),
    _moment("started_at"),
    _moment("seen_at"),
    Column("held", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("overdue", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    _moment("canary_sent_at", nullable=True),
    _moment("canary_seen_at", nullable=True),
    _counter("events_sent", BigInteger()),
    _counter("events_sampled", BigInteger()),
    _counter("events_dropped", BigInteger()),
)

#: Producers that live, and what they hold: written about once a second, removed at their end.
producers = Table(
    "producers",
    metadata,
    Column("producer", Text, primary_key=True),
    _required("feed", Text()),
    _moment("started_at"),
    _moment("seen_at"),
    _counter("candles", BigInteger()),
    _counter("jobs", BigInteger()),
    Column("held", JSONB, nullable=False, server_default=text("'{}'")),
    Column("held_ids", INT8MULTIRANGE, nullable=False, server_default=text("'{}'")),
    _counter("expired", BigInteger()),
    _counter("let_go", BigInteger()),
    _moment("waiting_since", nullable=True),
    Column("reason", Text),
    Column("notes", JSONB, nullable=False, server_default=text("'{}'")),
)

#: What each strategy holds in each series, as of the candle it was last written at: what came after it and changed
#: nothing is found in the ledger again. Rows stay when their strategy is paused or unloaded.
positions = Table(
    "positions",
    metadata,
    _required("strategy_id", Integer()),
    _required("symbol", Text()),
    _required("timeframe", Text()),
    _required("strategy_revision", Integer()),
    _required("side", SmallInteger()),
    _required("quantity", Double()),
    _required("size_percent", Double()),
    _required("entry_price", Double()),
    _required("entry_fee", Double()),
    Column("stop", Double),
    Column("target", Double),
    _required("best", Double()),
    _moment("opened_at", nullable=True),
    _required("barred", SmallInteger()),
    Column("order_side", SmallInteger),
    Column("order_quantity", Double),
    Column("order_percent", Double),
    Column("order_stop", Double),
    Column("order_target", Double),
    _required("profit", Double()),
    _required("fees", Double()),
    _required("trades", Integer()),
    Column("risk_percent", Double, nullable=False, server_default=text("0")),
    _moment("applied_open_time"),
    _required("version", Integer()),
    _required("correlation_id", Text()),
    _moment("updated_at", default=True),
    PrimaryKeyConstraint("strategy_id", "symbol", "timeframe"),
)
# the few that hold a part of the portfolio: what the risk cap is counted from
Index("ix_positions_at_risk", positions.c.strategy_id, postgresql_where=text("risk_percent > 0"))

#: Every change of every position; rows are added and never changed. What belongs to a dispatch is found by its candle
#: and strategies.
position_events = Table(
    "position_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _required("strategy_id", Integer()),
    _required("symbol", Text()),
    _required("timeframe", Text()),
    _moment("open_time"),
    _required("number", SmallInteger()),
    _required("strategy_revision", Integer()),
    _required("kind", Text()),
    _required("reason", Text()),
    _required("side", SmallInteger()),
    _required("price", Double()),
    _required("quantity", Double()),
    _required("fee", Double()),
    _required("profit", Double()),
    Column("stop", Double),
    Column("target", Double),
    _required("correlation_id", Text()),
    _moment("created_at", default=True),
    UniqueConstraint("strategy_id", "symbol", "timeframe", "open_time", "number"),
    _one_of("kind", [word.value for word in EventKind]),
    _one_of("reason", [word.value for word in Reason]),
)

#: The outbox of order intents. Ids are given under a lock that lasts until the commit, so they become visible in order.
actions = Table(
    "actions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _required("idempotency_key", Text()),
    _required("strategy_id", Integer()),
    _required("symbol", Text()),
    _required("timeframe", Text()),
    _moment("open_time"),
    _required("strategy_revision", Integer()),
    _required("kind", Text()),
    _required("side", SmallInteger()),
    _required("size_percent", Double()),
    _required("quantity", Double()),
    _required("price", Double()),
    Column("stop", Double),
    Column("target", Double),
    _required("cause", Text()),
    _required("correlation_id", Text()),
    _required("state", Text()),
    Column("reason", Text),
    _moment("created_at", default=True),
    _moment("sent_at", nullable=True),
    UniqueConstraint("idempotency_key"),
    _one_of("kind", [word.value for word in IntentKind]),
    _one_of("state", [word.value for word in ActionState]),
)
Index("ix_actions_unsent", actions.c.id, postgresql_where=text(f"state = '{ActionState.PENDING}'"))

#: Batch runs.
runs = Table(
    "runs",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    _required("kind", Text()),
    _required("state", Text()),
    Column("key", Text),
    _required("spec", JSONB()),
    _required("timeframe", Text()),
    _moment("from_time"),
    _moment("to_time"),
    _required("window", Integer()),
    _required("units", Integer()),
    _required("candles", BigInteger()),
    _required("hard_limit_s", Double()),
    _required("series", JSONB()),
    _required("warnings", JSONB()),
    _moment("created_at", default=True),
    _moment("finished_at", nullable=True),
    Column("selection", JSONB),
    Column("validation", JSONB),
    UniqueConstraint("key"),
    _one_of("kind", [word.value for word in RunKind]),
    _one_of("state", [word.value for word in RunState]),
)
Index("ix_runs_running", runs.c.id, postgresql_where=text(f"state = '{RunState.RUNNING}'"))

#: The strategies of a run, each with one set of params.
variants = Table(
    "variants",
    metadata,
    _required("run_id", Integer()),
    _required("number", Integer()),
    _required("strategy", Text()),
    Column("strategy_id", Integer),
    Column("revision", Integer),
    _required("implementation", Text()),
    _required("params", JSONB()),
    _required("trading", JSONB()),
    _required("fingerprint", Text()),
    Column("category", Text, nullable=False, server_default=text("'general'")),
    PrimaryKeyConstraint("run_id", "number"),
)

#: The queue of a run's units, and what came of them. A claim is somebody's as long as the advisory lock of its ticket
#: is held; a result counts only for the claim it was computed under.
units = Table(
    "units",
    metadata,
    _required("run_id", Integer()),
    _required("number", Integer()),
    _required("variant", Integer()),
    _required("symbol", Text()),
    _required("candles", Integer()),
    Column("state", Text, nullable=False, server_default=text(f"'{UnitState.PENDING}'")),
    _counter("attempts", SmallInteger()),
    Column("claim", BigInteger),
    Column("ticket", Integer),
    _moment("started_at", nullable=True),
    _moment("finished_at", nullable=True),
    Column("worker", Text),
    Column("elapsed_ms", Double),
    Column("cpu_ms", Double),
    Column("memory_mb", Integer),
    Column("metrics", JSONB),
    Column("error_class", Text),
    Column("error", Text),
    PrimaryKeyConstraint("run_id", "number"),
    _one_of("state", [word.value for word in UnitState]),
)
Index("ix_units_pending", units.c.run_id, units.c.number, postgresql_where=text(f"state = '{UnitState.PENDING}'"))

#: Closed trades of each unit, in order, as columns: thousands of rows would take longer to store than to compute. The
#: reason is a place in `app.runs.shapes.REASONS`.
unit_trade_columns = Table(
    "unit_trade_columns",
    metadata,
    _required("run_id", Integer()),
    _required("unit", Integer()),
    _required("opened_ms", ARRAY(BigInteger)),
    _required("closed_ms", ARRAY(BigInteger)),
    _required("side", ARRAY(SmallInteger)),
    _required("quantity", ARRAY(Double)),
    _required("entry_price", ARRAY(Double)),
    _required("exit_price", ARRAY(Double)),
    _required("fees", ARRAY(Double)),
    _required("profit", ARRAY(Double)),
    _required("reason", ARRAY(SmallInteger)),
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
    _required("run_id", Integer()),
    _required("unit", Integer()),
    _required("opened_ms", ARRAY(BigInteger)),
    _required("action", ARRAY(SmallInteger)),
    _required("strength", ARRAY(Double)),
    PrimaryKeyConstraint("run_id", "unit"),
)

#: The curve of each unit, sampled: close times in epoch ms, equity in quote currency, how far below its peak, close.
unit_equity = Table(
    "unit_equity",
    metadata,
    _required("run_id", Integer()),
    _required("unit", Integer()),
    _required("closed_ms", ARRAY(BigInteger)),
    _required("equity", ARRAY(Double)),
    _required("drawdown_percent", ARRAY(Double)),
    _required("close", ARRAY(Double)),
    PrimaryKeyConstraint("run_id", "unit"),
)

# compressing such numbers wins a third of the space, and takes Postgres three times as long as storing them
for _table in (unit_trade_columns, unit_signals, unit_equity):
    _names = [column.name for column in _table.columns if isinstance(column.type, ARRAY)]
    _changes = ", ".join(f"ALTER COLUMN {name} SET STORAGE EXTERNAL" for name in _names)
    event.listen(_table, "after_create", DDL(f"ALTER TABLE {_table.name} {_changes}"))  # type: ignore[no-untyped-call]

#: The queue of an evaluate run: markets that a slot claims and records at once, for some of the run's variants. Market
#: and variant make the number of a unit: market times the run's variants plus variant.
slices = Table(
    "slices",
    metadata,
    _required("run_id", Integer()),
    _required("number", Integer()),
    _required("first_market", Integer()),
    _required("symbols", ARRAY(Text)),
    _required("variants", ARRAY(Integer)),
    Column("state", Text, nullable=False, server_default=text(f"'{SliceState.PENDING}'")),
    _counter("attempts", SmallInteger()),
    Column("claim", BigInteger),
    Column("ticket", Integer),
    _moment("started_at", nullable=True),
    _moment("finished_at", nullable=True),
    Column("worker", Text),
    Column("elapsed_ms", Double),
    Column("cpu_ms", Double),
    Column("memory_mb", Integer),
    PrimaryKeyConstraint("run_id", "number"),
    _one_of("state", [word.value for word in SliceState]),
)
Index("ix_slices_pending", slices.c.run_id, slices.c.number, postgresql_where=text(f"state = '{SliceState.PENDING}'"))

#: What a variant says of each market of a slice, in the slice's order; NaN where nothing is stated.
evaluations = Table(
    "evaluations",
    metadata,
    _required("run_id", Integer()),
    _required("slice", Integer()),
    _required("variant", Integer()),
    _required("status", ARRAY(SmallInteger)),
    _required("opened_ms", ARRAY(BigInteger)),
    _required("action", ARRAY(SmallInteger)),
    _required("strength", ARRAY(Double)),
    _required("edge", ARRAY(Double)),
    _required("price", ARRAY(Double)),
    _required("stop", ARRAY(Double)),
    _required("target", ARRAY(Double)),
    PrimaryKeyConstraint("run_id", "slice", "variant"),
)

#: Why units of an evaluate run have no signal.
evaluation_errors = Table(
    "evaluation_errors",
    metadata,
    _required("run_id", Integer()),
    _required("unit", Integer()),
    _required("attempts", SmallInteger()),
    _required("error_class", Text()),
    _required("error", Text()),
    PrimaryKeyConstraint("run_id", "unit"),
)

#: The positions that an evaluate run selected, best edge first.
selected = Table(
    "selected",
    metadata,
    _required("run_id", Integer()),
    _required("unit", Integer()),
    _required("rank", Integer()),
    _required("stop", Double()),
    _required("target", Double()),
    _required("size_percent", Double()),
    _required("risk_percent", Double()),
    PrimaryKeyConstraint("run_id", "unit"),
)

#: What it did not select, and why; the detail is left out where the reason and the unit's own values say it all.
rejected = Table(
    "rejected",
    metadata,
    _required("run_id", Integer()),
    _required("unit", Integer()),
    _required("reason", Text()),
    Column("detail", Text),
    PrimaryKeyConstraint("run_id", "unit"),
)
