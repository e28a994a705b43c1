"""Using the embedded servers: join the keeper that runs, or start one.

A user holds `users.lock` of each server shared until it closes or dies; the kernel sees to the rest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import app
from app.embedded.files import Answer, Lock, is_locked, open_log, poll, tail
from app.embedded.keeper import SERVERS, Published
from app.embedded.servers import READY_TIMEOUT_S, StartError
from app.errors import ConfigurationError

#: Seconds to wait for another user's start or a keeper's shutdown, each of which may take a server's own timeout.
_PATIENCE_S = READY_TIMEOUT_S + 30.0
#: Keepers that may die under one start without giving a reason, as when somebody kills them.
_MOST_KEEPERS = 3
#: Where a new keeper imports this package from, installed or not, whatever the current directory is.
_IMPORTABLE_FROM = Path(app.__file__).parent.parent


class KeptServer:
    """One embedded server, seen by a user of it.

    Args:
        kind: `postgres` or `redis`.
        home: directory of the server.
        durable: what the user needs; see `start`.
    """

    def __init__(self, kind: str, home: Path, *, durable: bool) -> None:
        self.kind = kind
        self.home = home
        self._server_class = SERVERS[kind]
        self._durable = durable
        self._starting: Lock | None = None
        self._spawned = 0
        self._use: Lock | None = None
        self._pause: Lock | None = None
        self._known: Published | None = None

    @property
    def published(self) -> Published:
        """Port, password, version and process id, as the keeper tells them now."""
        self._known = Published.load(self.home) or self._known
        if self._known is None:
            raise StartError(f"{self._server_class.name} in {self.home} was not started")
        return self._known

    @property
    def url(self) -> str:
        """The address for clients, password included; it stays true over restarts."""
        return self._server_class.url_pattern.format(password=self.published.password, port=self.published.port)

    @property
    def pid(self) -> int:
        """Process id of the server, 0 while it is down."""
        return self.published.pid

    def describe(self) -> str:
        """Say what runs where, in a few words."""
        return f"{self._server_class.name} {self.published.version} on 127.0.0.1:{self.published.port}"

    def answers(self) -> bool:
        """Tell whether the server answers a client now."""
        known = self.published
        return self._server_class.ask_version(known.port, known.password) is not None

    def kill(self) -> None:
        """End the server as a crash would; its keeper starts it again on the same port. Returns once it is dead."""
        pid = self.pid
        if pid:
            os.kill(pid, signal.SIGKILL)
            self._wait(lambda: self.pid != pid or not _alive(pid), "die")

    def stop(self) -> None:
        """Stop the server cleanly and keep it down until `start`, `close` or the death of this process."""
        self._pause = self._pause or self._wait(lambda: Lock.take(self.home / "pause.lock"), "be paused")
        self._wait(lambda: self.pid == 0, "stop")

    def start(self) -> None:
        """Let the server run again after `stop` or `kill`, and wait until it answers."""
        _release(self._pause)
        self._pause = None
        self._wait(lambda: self.pid != 0 and self.answers(), "start")

    def restart(self, *, wipe: bool = False) -> None:
        """Stop and start the server; with `wipe` its data is lost in between (address and passwords stay)."""
        self.stop()
        if wipe:
            self._server_class(self.home).wipe()
        self.start()

    def join(self) -> None:
        """Become a user, and start a keeper if none lives. `finish_join` waits for the server."""
        self._starting = self._wait(lambda: Lock.take(self.home / "start.lock"), "finish another start")
        self._use = self._wait(lambda: Lock.take(self.home / "users.lock", shared=True), "finish a shutdown")
        self._spawn_if_dead()

    def finish_join(self) -> None:
        """Wait until the server answers.

        Raises:
            StartError: it could not be started; the message says why.
            ConfigurationError: it runs already, but less durable than this user needs.
        """
        self._wait(self._joined, "start")
        _release(self._starting)
        self._starting = None
        if self._durable and not self.published.durable:
            raise ConfigurationError(
                f"{self._server_class.name} in {self.home} runs without fsync for somebody else: end that command, or "
                "use another directory"
            )

    def close(self) -> None:
        """Stop using the server; its keeper stops it when nobody else does. Safe to repeat."""
        _release(self._pause)
        self._pause = None
        _release(self._starting)
        self._starting = None
        _release(self._use)
        self._use = None

    def await_end(self) -> None:
        """Wait, after `close`, until the keeper is gone."""
        self._wait(lambda: not is_locked(self.home / "keeper.lock"), "end")

    def _joined(self) -> bool:
        self._spawn_if_dead()
        return Published.load(self.home) is not None and self.answers()

    def _spawn_if_dead(self) -> None:
        """Start a keeper unless one lives; whether one lives is asked by taking its lock."""
        if (lock := Lock.take(self.home / "keeper.lock")) is None:
            return
        with lock:
            if self._spawned and ((failure := self._failure()) or self._spawned == _MOST_KEEPERS):
                log = tail(self.home / "keeper.log")
                raise StartError(
                    failure or f"the keeper of {self.home} ended {self._spawned} times without a word:\n{log}"
                )
            for stale in ("server.json", "failure.txt"):
                (self.home / stale).unlink(missing_ok=True)
            self._spawn(lock)
            self._spawned += 1

    def _spawn(self, lock: Lock) -> None:
        durability = "durable" if self._durable else "fast"
        with open_log(self.home / "keeper.log") as log:
            subprocess.run(  # noqa: S603  our own interpreter and module, no shell
                [sys.executable, "-m", "app.embedded", self.kind, str(self.home), durability],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=_IMPORTABLE_FROM,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
                check=False,
            )

    def _failure(self) -> str:
        """Return what the keeper gave as its reason; nothing if it was killed."""
        with contextlib.suppress(FileNotFoundError):
            return (self.home / "failure.txt").read_text(encoding="utf-8", errors="replace")
        return ""

    def _wait(self, ask: Callable[[], Answer | None], what: str) -> Answer:
        if (answer := poll(ask, _PATIENCE_S)) is None:
            raise StartError(
                f"{self._server_class.name} in {self.home} did not {what} within {_PATIENCE_S:.0f} s; "
                f"the end of its keeper's log:\n{tail(self.home / 'keeper.log')}"
            )
        return answer


class Servers:
    """The embedded servers that a caller asked for; a context manager, or `close()`.

    Attributes:
        root: where their data is.
        postgres, redis: the single servers; None if not asked for.
    """

    def __init__(self, root: Path, kinds: tuple[str, ...], *, durable: bool) -> None:
        self.root = root
        self._servers = {kind: KeptServer(kind, root / kind, durable=durable) for kind in kinds}

    @property
    def postgres(self) -> KeptServer:
        """The PostgreSQL server."""
        return self._get("postgres")

    @property
    def redis(self) -> KeptServer:
        """The Redis server."""
        return self._get("redis")

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database `candlefleet`, password included."""
        return self.postgres.url

    @property
    def broker_url(self) -> str:
        """URL of Redis database 0, password included."""
        return self.redis.url

    def describe(self) -> str:
        """Say in one line what runs where: `PostgreSQL 18.4 on 127.0.0.1:20345, data in .candlefleet`."""
        return ", ".join([*(each.describe() for each in self._servers.values()), f"data in {_short(self.root)}"])

    def join(self) -> None:
        """Join every server; both start at the same time."""
        for each in self._servers.values():
            each.join()
        for each in self._servers.values():
            each.finish_join()

    def close(self) -> None:
        """Stop using the servers; the last user's going stops them. Safe to repeat."""
        for each in self._servers.values():
            each.close()

    def await_end(self) -> None:
        """Wait, after `close`, until the servers have stopped and their data may be removed.

        Raises:
            StartError: somebody else still uses them.
        """
        for each in self._servers.values():
            each.await_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _get(self, kind: str) -> KeptServer:
        try:
            return self._servers[kind]
        except KeyError:
            raise ConfigurationError(f"embedded {kind} was not asked for: embedded.start(..., {kind}=True)") from None


def start(root: Path, *, postgres: bool = True, redis: bool = True, durable: bool = True) -> Servers:
    """Start the embedded servers, or join them if somebody uses them already.

    They stop when their last user has closed or died. Users in any number of processes share them.

    Args:
        root: directory of their data, made when missing; normally `.candlefleet`.
        postgres: False if a PostgreSQL of the environment is used instead.
        redis: False if a Redis of the environment is used instead.
        durable: False gives up safety against power loss (never against a dying process) for speed. For tests.

    Returns:
        The servers, answering. Close them, or use them in a `with`.

    Raises:
        ConfigurationError: they cannot run here, or did not start; the message says why and what to do.
    """
    kinds = tuple(kind for kind, wanted in (("postgres", postgres), ("redis", redis)) if wanted)
    servers = Servers(_make_root(root, kinds), kinds, durable=durable)
    try:
        servers.join()
    except BaseException as error:
        servers.close()
        if isinstance(error, OSError):
            raise ConfigurationError(f"cannot use {root} for the embedded servers: {error}") from error
        raise
    return servers


def _make_root(root: Path, kinds: tuple[str, ...]) -> Path:
    try:
        for kind in kinds:
            root.mkdir(parents=True, exist_ok=True)
            # Open for passing through, because the servers may run as another user; the files inside are private.
            (root / kind).mkdir(mode=0o711, exist_ok=True)
        return root.resolve()
    except OSError as error:
        raise ConfigurationError(
            f"expected a directory to keep the embedded servers' data in, cannot make {root}: {error}: choose another "
            "one, or correct its permissions"
        ) from error


def _release(lock: Lock | None) -> None:
    if lock is not None:
        lock.close()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
