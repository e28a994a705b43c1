"""Engines: how a process connects to Postgres, and how driver errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import ConfigurationError, StorageUnavailableError

#: Seconds to wait for a connection before the server counts as away.
CONNECT_TIMEOUT_S = 10

#: Keepalives find a vanished peer in about half a minute instead of two hours (Linux default).
KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


#: For connections that find rows by their keys. A plan is made when a statement is first prepared and kept: of a
#: deployment's first seconds it would read whole tables, because they were small then.
BY_KEY = "-c enable_seqscan=off"


def build_engine(dsn: str, *, name: str, pool_size: int = 5, by_key: bool = False) -> Engine:
    """Build an engine; nothing connects yet.

    Args:
        dsn: SQLAlchemy URL, ``postgresql+psycopg://...``.
        name: shown by Postgres in ``pg_stat_activity.application_name``.
        pool_size: most connections of this process.
        by_key: whether its statements all find rows by their keys, so that no plan may read a whole table.

    Raises:
        ConfigurationError: the URL is not one.
    """
    try:
        url = make_url(dsn)
    except (ArgumentError, ValueError) as error:  # the error would show the password
        raise ConfigurationError(
            "CANDLEFLEET_DATABASE_URL: expected postgresql://user:password@host:port/name, found something else"
        ) from error
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "application_name": name,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": f"-c timezone=UTC {BY_KEY if by_key else ''}".strip(),
            **KEEPALIVE,
        },
    )


@contextmanager
def open_engine(dsn: str, *, name: str, pool_size: int = 5) -> Iterator[Engine]:
    """Hand out an engine as `build_engine` does, and dispose of it at the end."""
    engine = build_engine(dsn, name=name, pool_size=pool_size)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's connection errors into StorageUnavailableError, keeping them as the cause."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise StorageUnavailableError(f"Postgres is away: {_one_line(error)}") from error
    except PoolTimeoutError as error:
        raise StorageUnavailableError(
            "all connections of this process are in use: CANDLEFLEET_DATABASE_POOL"
        ) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StorageUnavailableError(f"Postgres went away: {_one_line(error)}") from error
        raise


def driver_of(connection: Connection) -> psycopg.Connection[Any]:
    """Return the psycopg connection under a SQLAlchemy connection; it shares its transaction."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(f"expected psycopg 3, found {type(driver).__name__}")
    return driver


def _one_line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
