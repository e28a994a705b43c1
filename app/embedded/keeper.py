"""The keeper: the small process that is one server's parent for as long as anybody uses it.

It has a session of its own, so that Ctrl-C in a terminal does not reach it. It restarts its server when it dies
alone, stops it when the last user is gone, and talks to users through files only:

    users.lock    shared by every user; the keeper gets it exclusively when no user is left
    keeper.lock   held as long as the keeper lives; inherited from the user that started it, without a gap
    pause.lock    held by a user who wants the server down for a while (crash drills)
    server.json   port, password, pid, version; there only while the keeper lives
    failure.txt   why the server could not be started
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from app.embedded.files import Lock, is_locked, read_json, set_aside, write_json
from app.embedded.postgres_server import PostgresServer
from app.embedded.redis_server import RedisServer
from app.embedded.servers import Server
from app.errors import CandlefleetError

#: Which server a keeper can keep, by the name of its directory.
SERVERS: dict[str, type[Server]] = {"postgres": PostgresServer, "redis": RedisServer}
#: Seconds between two looks at users, server and pause.
_TICK_S = 0.1
#: Seconds before the next try when a server does not come back: doubled each time, up to the cap.
_FIRST_BACKOFF_S = 0.2
_LAST_BACKOFF_S = 10.0

log = logging.getLogger("candlefleet.embedded")


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the keeper tells users about its server; pid 0 while the server is down."""

    port: int
    password: str
    version: str
    durable: bool
    pid: int

    @classmethod
    def load(cls, home: Path) -> Self | None:
        """Read what the keeper of this directory published; None if there is nothing of use."""
        try:
            return cls(**read_json(home / "server.json"))
        except TypeError:
            return None


class Keeper:
    """Keeps one server for its users.

    Args:
        server: the server, not started yet.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._home = server.home
        self._told_to_end = False
        self._backoff_s = _FIRST_BACKOFF_S
        self._next_try = 0.0

    def run(self) -> int:
        """Start the server, keep it, and return when no user is left (or after SIGTERM)."""
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with self._server_kept():
            while not self._told_to_end:
                # Once ours, held until we are dead: a user who comes now waits for that and starts a new keeper.
                self._nobody_left = Lock.take(self._home / "users.lock")
                if self._nobody_left:
                    break
                self._tend()
                time.sleep(_TICK_S)
        return 0

    @contextlib.contextmanager
    def _server_kept(self) -> Iterator[None]:
        try:
            self._server.start()
            self._publish()
            yield
        finally:
            (self._home / "server.json").unlink(missing_ok=True)
            self._server.stop()
            log.info("stopped %s", self._server.name)

    def _tend(self) -> None:
        paused = is_locked(self._home / "pause.lock")
        if paused and self._server.pid is not None:
            log.info("pausing %s", self._server.name)
            self._server.stop()
            self._publish()
        elif not paused and self._server.pid is None and time.monotonic() >= self._next_try:
            self._heal()
        set_aside(self._server.log)

    def _heal(self) -> None:
        log.warning("%s is gone, starting it again", self._server.name)
        try:
            self._server.start()
        except CandlefleetError as error:
            log.error("%s", error)
            self._next_try = time.monotonic() + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, _LAST_BACKOFF_S)
        else:
            self._backoff_s = _FIRST_BACKOFF_S
        self._publish()

    def _publish(self) -> None:
        server = self._server
        published = Published(
            port=server.identity.port,
            password=server.identity.password,
            version=server.version,
            durable=server.durable,
            pid=server.pid or 0,
        )
        write_json(self._home / "server.json", asdict(published))
        log.info("%s %s on port %d, pid %d", server.name, published.version, published.port, published.pid)

    def _end(self, _signal: int, _frame: FrameType | None) -> None:
        self._told_to_end = True


def main(arguments: list[str]) -> int:
    """Become the keeper of the server in a directory: KIND DIRECTORY durable|fast.

    The process that was started ends at once and its child goes on, so that whoever started it has no child to
    reap and none to be blamed for.
    """
    if os.fork() != 0:
        os._exit(0)
    os.umask(0o077)
    kind, home, durability = arguments
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return Keeper(SERVERS[kind](Path(home), durable=durability == "durable")).run()
    except (CandlefleetError, OSError) as error:
        log.error("%s", error)
        Path(home, "failure.txt").write_text(str(error), encoding="utf-8")
        return 1
