"""Leadership: of any number of maintenance processes one is active, by a lock of a Postgres session.

The active process writes through that very session. When the session ends, for whatever reason, Postgres gives the
lock to somebody else and refuses the old leader's writes in the same instant: there is no moment with two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from app.errors import StorageUnavailableError
from app.storage.engine import CONNECT_TIMEOUT_S, KEEPALIVE, translated

#: Advisory lock of the active process; any constant of our own does, but that of migrations.
LOCK = 0x666C656574

#: Seconds without a word after which Postgres ends the session of a leader that hangs: below the 5 s in which
#: another one takes over.
LEASE_S = 3.5

#: Seconds between two probes of a leader's connection, and probes that may fail: a machine that lost its power
#: never says goodbye.
PROBE_S, PROBES = 1, 3

_SESSION = (
    "-c timezone=UTC"
    f" -c idle_session_timeout={LEASE_S * 1000:.0f} -c idle_in_transaction_session_timeout={LEASE_S * 1000:.0f}"
    f" -c tcp_keepalives_idle={PROBE_S} -c tcp_keepalives_interval={PROBE_S} -c tcp_keepalives_count={PROBES}"
)

_TRY = text("SELECT pg_try_advisory_lock(:lock)")
_CLOCK = text("SELECT clock_timestamp()")


class Leadership:
    """One process's claim to be the active one.

    Args:
        dsn: SQLAlchemy URL of Postgres.
    """

    def __init__(self, dsn: str) -> None:
        arguments = {
            "application_name": "candlefleet maintenance",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": _SESSION,
            **KEEPALIVE,
        }
        self._engine = create_engine(dsn, poolclass=NullPool, connect_args=arguments)
        self._connection: Connection | None = None

    def claim(self) -> bool:
        """Try to become the active process; tell whether that worked. Asked by the active one, it stays so.

        Raises:
            StorageUnavailableError: Postgres is away.
        """
        if self._connection is None:
            with translated():
                self._connection = self._engine.connect()
        with self.begin() as connection:
            return bool(connection.execute(_TRY, {"lock": LOCK}).scalar_one())

    def read_clock(self) -> datetime:
        """Return the time as Postgres has it, which shows that the lock is still held.

        Raises:
            StorageUnavailableError: the session has ended, and the lock with it.
        """
        with self.begin() as connection:
            moment: datetime = connection.execute(_CLOCK).scalar_one()
            return moment

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction of the session that holds the lock.

        Raises:
            StorageUnavailableError: the session has ended; nothing was written.
        """
        # a SQLAlchemy connection that broke would connect again by itself, without the lock
        if self._connection is None or self._connection.invalidated:
            raise StorageUnavailableError("the session that held the maintenance lock has ended")
        try:
            with translated(), self._connection.begin():
                yield self._connection
        except psycopg.OperationalError as error:  # of statements that do not go through SQLAlchemy
            raise StorageUnavailableError(f"Postgres went away: {error}") from error

    def resign(self) -> None:
        """End the session, and the claim with it. Idempotent."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
