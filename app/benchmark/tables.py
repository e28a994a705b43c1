"""The tables of the contenders that are not this system: as durable as the ledger, same columns, same index."""

from __future__ import annotations

from typing import Any

import psycopg
from sqlalchemy import make_url

#: Where plain Celery and the limit record their outcomes.
_OUTCOMES = (
    """
    CREATE TABLE bench_celery_outcomes
    (LIKE outcomes INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (dispatch_id, strategy_id))
    """,
    """
    CREATE TABLE bench_limit_outcomes
    (LIKE outcomes INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (dispatch_id, strategy_id))
    """,
)

#: What plain Celery's producer writes of each candle before it sends the jobs.
_CANDLES = """
    CREATE TABLE bench_celery_candles (
        id bigint GENERATED ALWAYS AS IDENTITY UNIQUE, symbol text, open_ms bigint, open float8, high float8,
        low float8, close float8, volume float8, created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (symbol, open_ms))
"""


def create_tables(connection: psycopg.Connection[Any]) -> None:
    """Create the tables; the ledger's own exist."""
    for statement in (*_OUTCOMES, _CANDLES):
        connection.execute(statement)


def connect(dsn: str, name: str) -> psycopg.Connection[Any]:
    """Connect with the driver alone, in autocommit: a statement is a transaction.

    Args:
        dsn: SQLAlchemy URL.
        name: shown by Postgres as the application.
    """
    url = make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True, application_name=name, options="-c timezone=UTC")
