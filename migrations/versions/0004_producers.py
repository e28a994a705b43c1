"""Producers: their signs of life, and what they hold that is committed and not yet on the queues."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    empty_object = sa.text("'{}'")
    op.create_table(
        "producers",
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("feed", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("candles", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("jobs", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("held", postgresql.JSONB(), server_default=empty_object, nullable=False),
        sa.Column("held_ids", postgresql.INT8MULTIRANGE(), server_default=empty_object, nullable=False),
        sa.Column("expired", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("let_go", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("waiting_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("notes", postgresql.JSONB(), server_default=empty_object, nullable=False),
        sa.PrimaryKeyConstraint("producer", name=op.f("pk_producers")),
    )


def downgrade() -> None:
    op.drop_table("producers")
