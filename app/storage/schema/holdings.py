"""Positions of strategies, their history, and the outbox of order intents."""

from __future__ import annotations

from sqlalchemy import (
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

from app.domain.orders import ActionState
from app.domain.positions import EventKind, IntentKind, Reason
from app.storage.schema.columns import metadata, moment, one_of, required

#: What each strategy holds in each series, as of the candle it was last written at: what came after it and changed
#: nothing is found in the ledger again. Rows stay when their strategy is paused or unloaded.
positions = Table(
    "positions",
    metadata,
    required("strategy_id", Integer()),
    required("symbol", Text()),
    required("timeframe", Text()),
    required("strategy_revision", Integer()),
    required("side", SmallInteger()),
    required("quantity", Double()),
    required("size_percent", Double()),
    required("entry_price", Double()),
    required("entry_fee", Double()),
    Column("stop", Double),
    Column("target", Double),
    required("best", Double()),
    moment("opened_at", nullable=True),
    required("barred", SmallInteger()),
    Column("order_side", SmallInteger),
    Column("order_quantity", Double),
    Column("order_percent", Double),
    Column("order_stop", Double),
    Column("order_target", Double),
    required("profit", Double()),
    required("fees", Double()),
    required("trades", Integer()),
    Column("risk_percent", Double, nullable=False, server_default=text("0")),
    moment("applied_open_time"),
    required("version", Integer()),
    required("correlation_id", Text()),
    moment("updated_at", default=True),
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
    required("strategy_id", Integer()),
    required("symbol", Text()),
    required("timeframe", Text()),
    moment("open_time"),
    required("number", SmallInteger()),
    required("strategy_revision", Integer()),
    required("kind", Text()),
    required("reason", Text()),
    required("side", SmallInteger()),
    required("price", Double()),
    required("quantity", Double()),
    required("fee", Double()),
    required("profit", Double()),
    Column("stop", Double),
    Column("target", Double),
    required("correlation_id", Text()),
    moment("created_at", default=True),
    UniqueConstraint("strategy_id", "symbol", "timeframe", "open_time", "number"),
    one_of("kind", [word.value for word in EventKind]),
    one_of("reason", [word.value for word in Reason]),
)

#: The outbox of order intents. Ids are given under a lock that lasts until the commit, so they become visible in order.
actions = Table(
    "actions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    required("idempotency_key", Text()),
    required("strategy_id", Integer()),
    required("symbol", Text()),
    required("timeframe", Text()),
    moment("open_time"),
    required("strategy_revision", Integer()),
    required("kind", Text()),
    required("side", SmallInteger()),
    required("size_percent", Double()),
    required("quantity", Double()),
    required("price", Double()),
    Column("stop", Double),
    Column("target", Double),
    required("cause", Text()),
    required("correlation_id", Text()),
    required("state", Text()),
    Column("reason", Text),
    moment("created_at", default=True),
    moment("sent_at", nullable=True),
    UniqueConstraint("idempotency_key"),
    one_of("kind", [word.value for word in IntentKind]),
    one_of("state", [word.value for word in ActionState]),
)
Index("ix_actions_unsent", actions.c.id, postgresql_where=text(f"state = '{ActionState.PENDING}'"))
