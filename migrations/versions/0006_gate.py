"""The gate: what a revision computes with, verifications, and strategies that were rejected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BEFORE = ("active", "paused", "unloaded", "quarantined")


def upgrade() -> None:
    for table in ("strategies", "strategy_revisions"):
        op.add_column(table, sa.Column("fingerprint", sa.Text(), nullable=True))
    _allow((*BEFORE, "rejected"))
    op.create_table(
        "verifications",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("implementation", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSONB(), nullable=False),
        sa.Column("limits", postgresql.JSONB(), nullable=False),
        sa.Column("symbols", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("timeframes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ran_on", sa.Text(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("report", postgresql.JSONB(), nullable=True),
        sa.Column("strategy_id", sa.Integer(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("forced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("forced_by", sa.Text(), nullable=True),
        sa.Column("forced_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("verdict IN ('passed', 'rejected')", name=op.f("ck_verifications_verdict")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verifications")),
    )
    op.create_index("ix_verifications_revision", "verifications", ["strategy_id", "revision"])


def downgrade() -> None:
    op.drop_table("verifications")
    op.execute("UPDATE strategies SET status = 'paused' WHERE status = 'rejected'")
    _allow(BEFORE)
    for table in ("strategy_revisions", "strategies"):
        op.drop_column(table, "fingerprint")


def _allow(statuses: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{status}'" for status in statuses)
    op.drop_constraint(op.f("ck_strategies_status"), "strategies", type_="check")
    op.create_check_constraint(op.f("ck_strategies_status"), "strategies", f"status IN ({listed})")
