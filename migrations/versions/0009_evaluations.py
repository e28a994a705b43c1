"""Evaluate runs: slices of markets, what strategies say of them, and what is selected; the validation of every run."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def _required(*names: str, kind: type[sa.types.TypeEngine[Any]] = sa.Integer) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=False) for name in names]


def _optional(*names: str, kind: type[sa.types.TypeEngine[Any]] = sa.Text) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=True) for name in names]


def _arrays(*names: str, kind: type[sa.types.TypeEngine[Any]]) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.ARRAY(kind()), nullable=False) for name in names]


def _moments(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.DateTime(timezone=True), nullable=True) for name in names]


def upgrade() -> None:
    op.add_column("runs", sa.Column("selection", postgresql.JSONB(), nullable=True))
    op.add_column("runs", sa.Column("validation", postgresql.JSONB(), nullable=True))
    op.add_column("variants", sa.Column("category", sa.Text(), server_default=sa.text("'general'"), nullable=False))
    _slices()
    _evaluations()
    _selections()


def _slices() -> None:
    op.create_table(
        "slices",
        *_required("run_id", "number", "first_market"),
        *_arrays("symbols", kind=sa.Text),
        *_arrays("variants", kind=sa.Integer),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        *_optional("claim", kind=sa.BigInteger),
        *_optional("ticket", kind=sa.Integer),
        *_moments("started_at", "finished_at"),
        *_optional("worker"),
        *_optional("elapsed_ms", "cpu_ms", kind=sa.Double),
        *_optional("memory_mb", kind=sa.Integer),
        sa.CheckConstraint("state IN ('pending', 'done', 'cancelled')", name=op.f("ck_slices_state")),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_slices")),
    )
    op.create_index("ix_slices_pending", "slices", ["run_id", "number"], postgresql_where=sa.text("state = 'pending'"))


def _evaluations() -> None:
    op.create_table(
        "evaluations",
        *_required("run_id", "slice", "variant"),
        *_arrays("status", kind=sa.SmallInteger),
        *_arrays("opened_ms", kind=sa.BigInteger),
        *_arrays("action", kind=sa.SmallInteger),
        *_arrays("strength", "edge", "price", "stop", "target", kind=sa.Double),
        sa.PrimaryKeyConstraint("run_id", "slice", "variant", name=op.f("pk_evaluations")),
    )
    op.create_table(
        "evaluation_errors",
        *_required("run_id", "unit"),
        *_required("attempts", kind=sa.SmallInteger),
        *_required("error_class", "error", kind=sa.Text),
        sa.PrimaryKeyConstraint("run_id", "unit", name=op.f("pk_evaluation_errors")),
    )


def _selections() -> None:
    op.create_table(
        "selected",
        *_required("run_id", "unit", "rank"),
        *_required("stop", "target", "size_percent", "risk_percent", kind=sa.Double),
        sa.PrimaryKeyConstraint("run_id", "unit", name=op.f("pk_selected")),
    )
    op.create_table(
        "rejected",
        *_required("run_id", "unit"),
        *_required("reason", kind=sa.Text),
        *_optional("detail"),
        sa.PrimaryKeyConstraint("run_id", "unit", name=op.f("pk_rejected")),
    )


def downgrade() -> None:
    for table in ("rejected", "selected", "evaluation_errors", "evaluations", "slices"):
        op.drop_table(table)
    op.drop_column("variants", "category")
    op.drop_column("runs", "validation")
    op.drop_column("runs", "selection")
