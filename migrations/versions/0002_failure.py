"""Failure: breakers, dead letters, what nodes hold, how often a dispatch was sent and when it expires."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATUSES = "'active', 'paused', 'unloaded'"


def upgrade() -> None:
    op.create_table(
        "breakers",
        sa.Column("strategy_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("trips", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "changed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open')", name=op.f("ck_breakers_state")),
        sa.PrimaryKeyConstraint("strategy_id", name=op.f("pk_breakers")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    _change_dispatches()
    for name in ("held", "overdue"):
        texts = postgresql.ARRAY(sa.Text())
        op.add_column("nodes", sa.Column(name, texts, server_default=sa.text("'{}'"), nullable=False))
    for name in ("canary_sent_at", "canary_seen_at"):
        op.add_column("nodes", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    _allow_statuses(f"{STATUSES}, 'quarantined'")


def downgrade() -> None:
    op.execute("UPDATE strategies SET status = 'paused' WHERE status = 'quarantined'")
    _allow_statuses(STATUSES)
    for name in ("canary_seen_at", "canary_sent_at", "overdue", "held"):
        op.drop_column("nodes", name)
    op.drop_index("ix_dispatches_unfinished", table_name="dispatches")
    op.create_index("ix_dispatches_open", "dispatches", ["deadline"], postgresql_where=sa.text("state = 'open'"))
    op.drop_column("dispatches", "sends")
    op.drop_column("dispatches", "expires_at")
    op.drop_table("dead_letters")
    op.drop_table("breakers")


def _change_dispatches() -> None:
    op.add_column("dispatches", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE dispatches SET expires_at = deadline")
    op.alter_column("dispatches", "expires_at", nullable=False)
    op.add_column("dispatches", sa.Column("sends", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.drop_index("ix_dispatches_open", table_name="dispatches")
    op.create_index("ix_dispatches_unfinished", "dispatches", ["id"], postgresql_where=sa.text("state <> 'complete'"))


def _allow_statuses(allowed: str) -> None:
    op.drop_constraint(op.f("ck_strategies_status"), "strategies", type_="check")
    op.create_check_constraint(op.f("ck_strategies_status"), "strategies", f"status IN ({allowed})")
