"""Batch runs, their units, and what these leave behind."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _required(*names: str, kind: type[sa.types.TypeEngine[Any]] = sa.Integer) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=False) for name in names]


def _optional(*names: str, kind: type[sa.types.TypeEngine[Any]] = sa.Text) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=True) for name in names]


def _arrays(*names: str, kind: type[sa.types.TypeEngine[Any]]) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.ARRAY(kind()), nullable=False) for name in names]


def _moment(name: str, *, nullable: bool = False, default: bool = False) -> sa.Column[Any]:
    now = sa.text("clock_timestamp()") if default else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=now, nullable=nullable)


def _check(table: str, column: str, words: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{column}"))


def upgrade() -> None:
    _runs()
    _variants()
    _units()
    _results()


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        *_required("kind", "state", kind=sa.Text),
        *_optional("key"),
        *_required("spec", kind=postgresql.JSONB),
        *_required("timeframe", kind=sa.Text),
        _moment("from_time"),
        _moment("to_time"),
        *_required("window", "units"),
        *_required("candles", kind=sa.BigInteger),
        *_required("hard_limit_s", kind=sa.Double),
        *_required("series", "warnings", kind=postgresql.JSONB),
        _moment("created_at", default=True),
        _moment("finished_at", nullable=True),
        _check("runs", "kind", ("backtest", "evaluate")),
        _check("runs", "state", ("running", "paused", "cancelled", "complete")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("key", name=op.f("uq_runs_key")),
    )
    op.create_index("ix_runs_running", "runs", ["id"], postgresql_where=sa.text("state = 'running'"))


def _variants() -> None:
    op.create_table(
        "variants",
        *_required("run_id", "number"),
        *_required("strategy", kind=sa.Text),
        *_optional("strategy_id", "revision", kind=sa.Integer),
        *_required("implementation", kind=sa.Text),
        *_required("params", "trading", kind=postgresql.JSONB),
        *_required("fingerprint", kind=sa.Text),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_variants")),
    )


def _units() -> None:
    op.create_table(
        "units",
        *_required("run_id", "number", "variant"),
        *_required("symbol", kind=sa.Text),
        *_required("candles"),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        *_optional("claim", kind=sa.BigInteger),
        *_optional("ticket", kind=sa.Integer),
        _moment("started_at", nullable=True),
        _moment("finished_at", nullable=True),
        *_optional("worker"),
        *_optional("elapsed_ms", "cpu_ms", kind=sa.Double),
        *_optional("memory_mb", kind=sa.Integer),
        *_optional("metrics", kind=postgresql.JSONB),
        *_optional("error_class", "error"),
        _check("units", "state", ("pending", "succeeded", "failed", "cancelled")),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_units")),
    )
    op.create_index("ix_units_pending", "units", ["run_id", "number"], postgresql_where=sa.text("state = 'pending'"))


def _results() -> None:
    op.create_table(
        "unit_trades",
        *_required("run_id", "unit", "number"),
        _moment("opened_at"),
        _moment("closed_at"),
        *_required("side", kind=sa.SmallInteger),
        *_required("quantity", "entry_price", "exit_price", "fees", "profit", kind=sa.Double),
        *_required("reason", kind=sa.Text),
        sa.PrimaryKeyConstraint("run_id", "unit", "number", name=op.f("pk_unit_trades")),
    )
    op.create_table(
        "unit_signals",
        *_required("run_id", "unit"),
        *_arrays("opened_ms", kind=sa.BigInteger),
        *_arrays("action", kind=sa.SmallInteger),
        *_arrays("strength", kind=sa.Double),
        sa.PrimaryKeyConstraint("run_id", "unit", name=op.f("pk_unit_signals")),
    )
    op.create_table(
        "unit_equity",
        *_required("run_id", "unit"),
        *_arrays("closed_ms", kind=sa.BigInteger),
        *_arrays("equity", "drawdown_percent", "close", kind=sa.Double),
        sa.PrimaryKeyConstraint("run_id", "unit", name=op.f("pk_unit_equity")),
    )


def downgrade() -> None:
    for table in ("unit_equity", "unit_signals", "unit_trades", "units", "variants", "runs"):
        op.drop_table(table)
