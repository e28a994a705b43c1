"""Dispatches, outcomes, decisions, and what went wrong on the way."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
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
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.domain.breakers import BreakerState
from app.domain.decisions import ClosedBy
from app.domain.jobs import DispatchState, OutcomeStatus
from app.storage.schema.columns import counter, metadata, moment, one_of, required

#: Dispatches whose outcomes share a partition. At 500 symbols of 1h candles and 50 strategies that is
#: about eight days and 5 million rows: small enough to drop quickly, large enough to keep few.
PARTITION_SPAN = 100_000

#: How partitions are called: outcomes_p<first dispatch id>.
PARTITION_PREFIX = "outcomes_p"

dispatches = Table(
    "dispatches",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    required("symbol", Text()),
    required("timeframe", Text()),
    moment("open_time"),
    counter("revision", Integer()),
    required("strategy_ids", ARRAY(Integer())),
    required("strategy_revisions", ARRAY(Integer())),
    required("weights", ARRAY(Double())),
    required("expected", Integer()),
    counter("landed", Integer()),
    Column("state", Text, nullable=False, server_default=text(f"'{DispatchState.OPEN}'")),
    moment("deadline"),
    required("correlation_id", Text()),
    moment("created_at", default=True),
    moment("published_at", nullable=True),
    moment("completed_at", nullable=True),
    moment("expires_at"),
    counter("sends", SmallInteger()),
    Column("plan_id", BigInteger),
    UniqueConstraint("symbol", "timeframe", "open_time", "revision"),
    one_of("state", [word.value for word in DispatchState]),
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
    required("digest", Text()),
    required("chunks", JSONB()),
    moment("created_at", default=True),
    UniqueConstraint("digest"),
)

outcomes = Table(
    "outcomes",
    metadata,
    required("dispatch_id", BigInteger()),
    required("strategy_id", Integer()),
    required("strategy_revision", Integer()),
    required("status", Text()),
    Column("action", SmallInteger),
    Column("strength", Double),
    Column("edge", Double),
    Column("detail", JSONB),
    Column("error_class", Text),
    Column("error", Text),
    counter("attempt", SmallInteger()),
    required("queued_ms", REAL()),
    required("processing_ms", REAL()),
    required("worker", Text()),
    moment("finished_at", default=True),
    PrimaryKeyConstraint("dispatch_id", "strategy_id"),
    one_of("status", [word.value for word in OutcomeStatus]),
    postgresql_partition_by="RANGE (dispatch_id)",
)

attempts = Table(
    "attempts",
    metadata,
    required("dispatch_id", BigInteger()),
    required("strategy_id", Integer()),
    required("attempt", SmallInteger()),
    required("status", Text()),
    Column("error_class", Text),
    Column("error", Text),
    required("processing_ms", REAL()),
    required("worker", Text()),
    moment("finished_at", default=True),
    PrimaryKeyConstraint("dispatch_id", "strategy_id", "attempt"),
    one_of("status", [word.value for word in OutcomeStatus]),
)

decisions = Table(
    "decisions",
    metadata,
    Column("dispatch_id", BigInteger, primary_key=True, autoincrement=False),
    Column("action", SmallInteger),
    required("score", Double()),
    required("weight_heard", Double()),
    required("missing", ARRAY(Integer())),
    required("closed_by", Text()),
    required("latency_ms", Double()),
    moment("decided_at", default=True),
    one_of("closed_by", [word.value for word in ClosedBy]),
)

#: Strategies whose breaker is not at rest, or was not once.
breakers = Table(
    "breakers",
    metadata,
    Column("strategy_id", Integer, primary_key=True, autoincrement=False),
    required("state", Text()),
    counter("failures", Integer()),
    counter("trips", Integer()),
    counter("crashes", Integer()),
    moment("open_until", nullable=True),
    moment("changed_at", default=True),
    one_of("state", [word.value for word in BreakerState]),
)

#: Messages that no worker could make sense of; looked at with `candlefleet doctor`, never delivered again.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    required("reason", Text()),
    required("body", Text()),
    required("worker", Text()),
    moment("received_at", default=True),
)
