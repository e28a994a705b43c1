"""The ledger: candles, the strategy catalogue, dispatches, outcomes by partition, decisions, nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("dispatch_id", sa.BigInteger(), nullable=False),
        sa.Column("strategy_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("processing_ms", sa.REAL(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column(
            "finished_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "status IN ('succeeded', 'failed', 'timed_out', 'crashed', 'expired', 'skipped', 'cancelled')",
            name=op.f("ck_attempts_status"),
        ),
        sa.PrimaryKeyConstraint("dispatch_id", "strategy_id", "attempt", name=op.f("pk_attempts")),
    )
    op.create_table(
        "candles",
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("open_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("open", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("close", sa.Double(), nullable=False),
        sa.Column("volume", sa.Double(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("symbol", "timeframe", "open_time", name=op.f("pk_candles")),
    )
    op.create_table(
        "catalogue",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("is_only", name=op.f("ck_catalogue_is_only")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("pk_catalogue")),
    )
    op.create_table(
        "decisions",
        sa.Column("dispatch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("action", sa.SmallInteger(), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("weight_heard", sa.Double(), nullable=False),
        sa.Column("missing", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("closed_by", sa.Text(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column(
            "decided_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("closed_by IN ('complete', 'quorum', 'deadline')", name=op.f("ck_decisions_closed_by")),
        sa.PrimaryKeyConstraint("dispatch_id", name=op.f("pk_decisions")),
    )
    op.create_table(
        "dispatches",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("open_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("strategy_ids", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("strategy_revisions", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("weights", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=False),
        sa.Column("landed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('open', 'complete', 'closed')", name=op.f("ck_dispatches_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dispatches")),
        sa.UniqueConstraint(
            "symbol",
            "timeframe",
            "open_time",
            "revision",
            name=op.f("uq_dispatches_symbol_timeframe_open_time_revision"),
        ),
        postgresql_with={"fillfactor": 80},
    )
    op.create_index("ix_dispatches_correlation_id", "dispatches", ["correlation_id"], unique=False)
    op.create_index(
        "ix_dispatches_open", "dispatches", ["deadline"], unique=False, postgresql_where=sa.text("state = 'open'")
    )
    op.create_table(
        "nodes",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("queues", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("processed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("errors", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rss_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_nodes")),
    )
    op.create_table(
        "outcomes",
        sa.Column("dispatch_id", sa.BigInteger(), nullable=False),
        sa.Column("strategy_id", sa.Integer(), nullable=False),
        sa.Column("strategy_revision", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("action", sa.SmallInteger(), nullable=True),
        sa.Column("strength", sa.Double(), nullable=True),
        sa.Column("edge", sa.Double(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempt", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("queued_ms", sa.REAL(), nullable=False),
        sa.Column("processing_ms", sa.REAL(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column(
            "finished_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "status IN ('succeeded', 'failed', 'timed_out', 'crashed', 'expired', 'skipped', 'cancelled')",
            name=op.f("ck_outcomes_status"),
        ),
        sa.PrimaryKeyConstraint("dispatch_id", "strategy_id", name=op.f("pk_outcomes")),
        postgresql_partition_by="RANGE (dispatch_id)",
    )
    op.create_table(
        "series",
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("last_open_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rewrites", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("symbol", "timeframe", name=op.f("pk_series")),
    )
    op.create_table(
        "strategies",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("implementation", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("symbols", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("timeframes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("limits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "provenance", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("priority IN ('high', 'normal', 'low')", name=op.f("ck_strategies_priority")),
        sa.CheckConstraint("status IN ('active', 'paused', 'unloaded')", name=op.f("ck_strategies_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_strategies")),
        sa.UniqueConstraint("name", name=op.f("uq_strategies_name")),
    )
    op.create_table(
        "strategy_revisions",
        sa.Column("strategy_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("implementation", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["strategy_id"], ["strategies.id"], name=op.f("fk_strategy_revisions_strategy_id_strategies")
        ),
        sa.PrimaryKeyConstraint("strategy_id", "revision", name=op.f("pk_strategy_revisions")),
    )
    op.execute("INSERT INTO catalogue DEFAULT VALUES")


def downgrade() -> None:
    op.drop_table("strategy_revisions")
    op.drop_table("strategies")
    op.drop_table("series")
    op.drop_table("outcomes")
    op.drop_table("nodes")
    op.drop_index("ix_dispatches_open", table_name="dispatches", postgresql_where=sa.text("state = 'open'"))
    op.drop_index("ix_dispatches_correlation_id", table_name="dispatches")
    op.drop_table("dispatches")
    op.drop_table("decisions")
    op.drop_table("catalogue")
    op.drop_table("candles")
    op.drop_table("attempts")
