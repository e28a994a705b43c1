"""Strategies, their revisions, and what the gate said of them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.domain.strategies import Priority, StrategyStatus
from app.storage.schema.columns import counter, metadata, moment, one_of, required

#: One row: the version of the strategy catalogue, bumped in every transaction that changes it.
catalogue = Table(
    "catalogue",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    counter("version", BigInteger()),
    CheckConstraint("is_only", name="is_only"),
)

strategies = Table(
    "strategies",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    required("name", Text()),
    required("implementation", Text()),
    required("params", JSONB()),
    required("symbols", ARRAY(Text())),
    required("timeframes", ARRAY(Text())),
    required("priority", Text()),
    required("category", Text()),
    required("weight", Double()),
    required("limits", JSONB()),
    required("status", Text()),
    counter("revision", Integer(), start=1),
    Column("provenance", JSONB, nullable=False, server_default=text("'{}'")),
    moment("created_at", default=True),
    moment("updated_at", default=True),
    Column("fingerprint", Text),
    Column("trading", JSONB(none_as_null=True)),
    moment("trading_since", nullable=True),
    UniqueConstraint("name"),
    one_of("priority", [word.value for word in Priority]),
    one_of("status", [word.value for word in StrategyStatus]),
)

#: What each revision computes; rows never change, so an outcome can always be computed again. A fingerprint that nobody
#: took is filled in later.
strategy_revisions = Table(
    "strategy_revisions",
    metadata,
    Column("strategy_id", Integer, ForeignKey("strategies.id"), nullable=False),
    required("revision", Integer()),
    required("implementation", Text()),
    required("params", JSONB()),
    moment("created_at", default=True),
    Column("fingerprint", Text),
    PrimaryKeyConstraint("strategy_id", "revision"),
)

#: What the gate was asked about strategies, and what it said; and who enabled one that it rejected.
verifications = Table(
    "verifications",
    metadata,
    Column("id", Text, primary_key=True),
    required("strategy", Text()),
    required("implementation", Text()),
    required("params", JSONB()),
    required("limits", JSONB()),
    required("symbols", ARRAY(Text())),
    required("timeframes", ARRAY(Text())),
    required("fingerprint", Text()),
    moment("asked_at", default=True),
    moment("started_at", nullable=True),
    moment("finished_at", nullable=True),
    Column("ran_on", Text),
    Column("verdict", Text),
    Column("report", JSONB),
    Column("strategy_id", Integer),
    Column("revision", Integer),
    moment("forced_at", nullable=True),
    Column("forced_by", Text),
    Column("forced_reason", Text),
    one_of("verdict", ["passed", "rejected"]),
)
Index("ix_verifications_revision", verifications.c.strategy_id, verifications.c.revision)
