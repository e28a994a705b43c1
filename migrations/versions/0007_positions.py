"""Positions, what happened to them, and the outbox of order intents."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _required(*names: str, kind: type[sa.types.TypeEngine[Any]] = sa.Double) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=False) for name in names]


def _optional(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Double(), nullable=True) for name in names]


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _moment(name: str, *, nullable: bool = False, default: bool = False) -> sa.Column[Any]:
    now = sa.text("clock_timestamp()") if default else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=now, nullable=nullable)


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False)


def upgrade() -> None:
    op.add_column("strategies", sa.Column("trading", postgresql.JSONB(), nullable=True))
    op.add_column("strategies", sa.Column("trading_since", sa.DateTime(timezone=True), nullable=True))
    _positions()
    _events()
    _actions()


def _positions() -> None:
    op.create_table(
        "positions",
        *_required("strategy_id", kind=sa.Integer),
        *_texts("symbol", "timeframe"),
        *_required("strategy_revision", kind=sa.Integer),
        *_required("side", kind=sa.SmallInteger),
        *_required("quantity", "size_percent", "entry_price", "entry_fee"),
        *_optional("stop", "target"),
        *_required("best"),
        _moment("opened_at", nullable=True),
        *_required("barred", kind=sa.SmallInteger),
        sa.Column("order_side", sa.SmallInteger(), nullable=True),
        *_optional("order_quantity", "order_percent", "order_stop", "order_target"),
        *_required("profit", "fees"),
        *_required("trades", kind=sa.Integer),
        sa.Column("risk_percent", sa.Double(), server_default=sa.text("0"), nullable=False),
        _moment("applied_open_time"),
        *_required("version", kind=sa.Integer),
        *_texts("correlation_id"),
        _moment("updated_at", default=True),
        sa.PrimaryKeyConstraint("strategy_id", "symbol", "timeframe", name=op.f("pk_positions")),
    )
    op.create_index("ix_positions_at_risk", "positions", ["strategy_id"], postgresql_where=sa.text("risk_percent > 0"))


def _events() -> None:
    kinds, reasons = ("opened", "adjusted", "closed"), ("signal", "strength", "levels", "stop", "target", "trailing")
    op.create_table(
        "position_events",
        _id(),
        *_required("strategy_id", kind=sa.Integer),
        *_texts("symbol", "timeframe"),
        _moment("open_time"),
        *_required("number", kind=sa.SmallInteger),
        *_required("strategy_revision", kind=sa.Integer),
        *_texts("kind", "reason"),
        *_required("side", kind=sa.SmallInteger),
        *_required("price", "quantity", "fee", "profit"),
        *_optional("stop", "target"),
        *_texts("correlation_id"),
        _moment("created_at", default=True),
        _check("position_events", "kind", kinds),
        _check("position_events", "reason", reasons),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_position_events")),
        sa.UniqueConstraint(
            *("strategy_id", "symbol", "timeframe", "open_time", "number"),
            name=op.f("uq_position_events_strategy_id_symbol_timeframe_open_time_number"),
        ),
    )


def _actions() -> None:
    op.create_table(
        "actions",
        _id(),
        *_texts("idempotency_key"),
        *_required("strategy_id", kind=sa.Integer),
        *_texts("symbol", "timeframe"),
        _moment("open_time"),
        *_required("strategy_revision", kind=sa.Integer),
        *_texts("kind"),
        *_required("side", kind=sa.SmallInteger),
        *_required("size_percent", "quantity", "price"),
        *_optional("stop", "target"),
        *_texts("cause", "correlation_id", "state"),
        sa.Column("reason", sa.Text(), nullable=True),
        _moment("created_at", default=True),
        _moment("sent_at", nullable=True),
        _check("actions", "kind", ("open", "close", "reduce")),
        _check("actions", "state", ("pending", "sent", "refused")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_actions")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_actions_idempotency_key")),
    )
    op.create_index("ix_actions_unsent", "actions", ["id"], postgresql_where=sa.text("state = 'pending'"))


def _check(table: str, column: str, words: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{column}"))


def downgrade() -> None:
    for table in ("actions", "position_events", "positions"):
        op.drop_table(table)
    for column in ("trading_since", "trading"):
        op.drop_column("strategies", column)
