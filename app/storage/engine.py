"""Engines: how a process connects to Postgres, and how driver errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from app.errors import StorageUnavailableError

#: Seconds to wait for a connection before the server counts as away.
CONNECT_TIMEOUT_S = 10

#: Keepalives find a vanished peer in about half a minute instead of two hours (Linux default).
KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


def build_engine(dsn: str, *, name: str, pool_size: int = 5) -> Engine:
    """Build an engine; nothing connects yet.

    Args:
        dsn: SQLAlchemy URL, ``postgresql+psycopg://...``.
        name: shown by Postgres in ``pg_stat_activity.application_name``.
        pool_size: most connections of this process.
    """
    return create_engine(
        dsn,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "application_name": name,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": "-c timezone=UTC",
            **KEEPALIVE,
        },
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's connection errors into StorageUnavailableError, keeping them as the cause."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise StorageUnavailableError(f"Postgres is away: {error.orig}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StorageUnavailableError(f"Postgres went away: {error.orig}") from error
        raise
