"""Every table, declared, by subject. Alembic owns the database; a test holds the migrations to these pages.

Hot tables carry no foreign keys: their writers insert in an order that makes dangling rows impossible,
and a key check per row would lock the referenced row on every insert.
"""

from app.storage.schema.catalogue import catalogue, strategies, strategy_revisions, verifications
from app.storage.schema.columns import metadata
from app.storage.schema.evaluations import evaluation_errors, evaluations, rejected, selected, slices
from app.storage.schema.fleet import nodes, producers
from app.storage.schema.holdings import actions, position_events, positions
from app.storage.schema.ledger import (
    PARTITION_PREFIX,
    PARTITION_SPAN,
    attempts,
    breakers,
    dead_letters,
    decisions,
    dispatches,
    outcomes,
    plans,
)
from app.storage.schema.market import candles, series
from app.storage.schema.runs import UNIT_TRADES, runs, unit_equity, unit_signals, unit_trade_columns, units, variants

__all__ = [
    "PARTITION_PREFIX",
    "PARTITION_SPAN",
    "UNIT_TRADES",
    "actions",
    "attempts",
    "breakers",
    "candles",
    "catalogue",
    "dead_letters",
    "decisions",
    "dispatches",
    "evaluation_errors",
    "evaluations",
    "metadata",
    "nodes",
    "outcomes",
    "plans",
    "position_events",
    "positions",
    "producers",
    "rejected",
    "runs",
    "selected",
    "series",
    "slices",
    "strategies",
    "strategy_revisions",
    "unit_equity",
    "unit_signals",
    "unit_trade_columns",
    "units",
    "variants",
    "verifications",
]
