"""Which servers this process works with: those the settings name, else the embedded ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from app import embedded
from app.settings import Settings


@contextmanager
def throwaway(settings: Settings) -> Iterator[Deployment]:
    """Hand out a deployment on embedded servers of its own in a temporary folder; nothing of it remains."""
    with TemporaryDirectory(prefix="candlefleet-") as folder:
        own = settings.model_copy(update={"home": Path(folder), "database_url": None, "broker_url": None})
        deployment = Deployment(own)
        try:
            yield deployment
        finally:
            deployment.close(wait=True)


class Deployment:
    """Settings with a database and a broker in them. Embedded servers run at least until `close`.

    Args:
        settings: as loaded; what they do not name is started under `settings.home`, or joined if it runs.

    Raises:
        ConfigurationError: an embedded server cannot be started.
    """

    def __init__(self, settings: Settings) -> None:
        self._servers: embedded.Servers | None = None
        self.settings = settings
        missing = {"postgres": settings.database_url is None, "redis": settings.broker_url is None}
        if any(missing.values()):
            self._servers = embedded.start(settings.home, **missing)
            self.settings = settings.model_copy(update=self._addresses(settings, self._servers))

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make another process work with the same servers."""
        return {
            "CANDLEFLEET_DATABASE_URL": self.settings.database_dsn.replace("postgresql+psycopg://", "postgresql://", 1),
            "CANDLEFLEET_BROKER_URL": self.settings.broker_dsn,
        }

    def describe(self) -> str:
        """Say which servers these are, without secrets."""
        return self._servers.describe() if self._servers else "servers named by the environment"

    def close(self, *, wait: bool = False) -> None:
        """Leave the embedded servers; they stop when nobody uses them. Idempotent.

        Args:
            wait: return only when they have stopped.
        """
        if self._servers is not None:
            self._servers.close()
            if wait:
                self._servers.await_end()
            self._servers = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _addresses(settings: Settings, servers: embedded.Servers) -> dict[str, SecretStr]:
        addresses = {}
        if settings.database_url is None:
            addresses["database_url"] = SecretStr(servers.database_url)
        if settings.broker_url is None:
            addresses["broker_url"] = SecretStr(servers.broker_url)
        return addresses
