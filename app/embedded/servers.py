"""One server process each: PostgresServer and RedisServer, children of the process that starts them.

Owns their installation, configuration, start, readiness and end. Knows nothing of who uses them or for how long:
that is keeper.py and usage.py. Tests may use these classes directly.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import psutil

from app.embedded.files import Lock, open_log, poll, read_json, tail, write_json
from app.embedded.privileges import Privileges, find_privileges
from app.errors import ConfigurationError

HOST = "127.0.0.1"
#: Ports to choose from: below the range of outgoing connections (32768 and up on Linux, 49152 and up on macOS), so
#: that no client's own socket can sit on the port while a server restarts.
_PORTS = range(20_000, 32_000)
#: Seconds a server may take to answer after its start; crash recovery of a large database is the long case.
READY_TIMEOUT_S = 60.0
#: Seconds a server may take to end after each of its signals, the polite one first.
_END_TIMEOUT_S = 20.0


class StartError(ConfigurationError):
    """A server did not start; the message ends with the tail of its log."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a server keeps over restarts, so that addresses once handed out stay true."""

    port: int
    password: str
    admin_password: str

    @classmethod
    def invent(cls) -> Self:
        """Choose a free port and random passwords."""
        return cls(port=free_port(), password=secrets.token_hex(16), admin_password=secrets.token_hex(16))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the identity; None if there is none or it makes no sense."""
        content = read_json(path)
        try:
            found = cls(**content)
        except TypeError:
            return None
        texts = (found.password, found.admin_password)
        valid = isinstance(found.port, int) and 0 < found.port < 65536 and all(isinstance(text, str) for text in texts)
        return found if valid else None


class Server(ABC):
    """A server process with its directory: `data/`, `server.log`, `identity.json` and `server.lock`.

    The server inherits the descriptor of `server.lock`: as long as any process of it lives, orphaned or not, the lock
    is held, and a new server on the same data waits for it.
    On Linux it ends with the thread that started it: start it from a thread that lives as long as it shall.

    Args:
        home: directory of this server; created when missing.
        durable: False trades safety against power loss, never against a dying process, for speed. Tests do.
    """

    name: ClassVar[str]
    url_pattern: ClassVar[str]
    #: Signals that end it, the polite one first.
    end_signals: ClassVar[tuple[signal.Signals, ...]]

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.home = home.resolve()
        self.durable = durable
        self.data = self.home / "data"
        self.log = self.home / "server.log"
        self.version = ""
        self._identity_path = self.home / "identity.json"
        self._identity: Identity | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._privileges = Privileges()
        self._passwords_are_new = True
        self._announced = False  # from then on clients know the port

    @property
    def identity(self) -> Identity:
        """Port and passwords; known once the server was started."""
        if self._identity is None:
            raise ConfigurationError(f"{self.name} in {self.home} was not started yet: call start() first")
        return self._identity

    @property
    def url(self) -> str:
        """The address for clients, password included."""
        return self.url_pattern.format(password=self.identity.password, port=self.identity.port)

    @property
    def pid(self) -> int | None:
        """Process id of the running server, None if it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and wait until it answers; does nothing if it runs.

        The first start chooses a free port. Later starts of this object keep it, because clients know it.

        Raises:
            StartError: it did not start; the message carries the tail of its log.
            ConfigurationError: the program is missing, or cannot run as this user.
        """
        if self.pid is not None:
            return
        self.home.mkdir(parents=True, exist_ok=True)
        with self._claim_data() as lock:
            self._prepare()
            while not self._try_start(lock):
                self._identity = replace(self.identity, port=free_port())
                self._save_identity()
        self._announced = True

    def stop(self) -> None:
        """End the server cleanly; harder when it does not listen. Does nothing if it is not running."""
        if self._process is not None:
            end_processes([psutil.Process(self._process.pid)] if self.pid else [], self.end_signals)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End the server as a crash would: SIGKILL, no goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Delete the data of a server that is not running; port and passwords stay."""
        shutil.rmtree(self.data, ignore_errors=True)

    @classmethod
    @abstractmethod
    def ask_version(cls, port: int, password: str) -> str | None:
        """Return the version if a server answers to this password on this port, None if not."""

    @abstractmethod
    def _program(self) -> Path:
        """Find the server program."""

    def _needed(self) -> dict[Path, int]:
        """Files of the installation and the access the server needs to them."""
        return {self._program(): os.X_OK}

    @abstractmethod
    def _install(self) -> None:
        """Bring the data directory to where the server can start; cheap when it is there already."""

    @abstractmethod
    def _arguments(self) -> list[str]:
        """Arguments of the server process."""

    def _provision(self) -> bool:
        """Make what clients need inside the server; False while it does not answer."""
        return True

    @contextlib.contextmanager
    def _claim_data(self) -> Iterator[int]:
        with self._take_lock() as lock:
            yield lock.fileno()

    def _take_lock(self) -> Lock:
        """Take server.lock; whatever of an earlier server still holds it is ended."""
        path = self.home / "server.lock"
        if (lock := Lock.take(path)) is not None:
            return lock
        for each in self.end_signals:
            _send(each, self._leftovers())
            if (lock := poll(lambda: Lock.take(path), _END_TIMEOUT_S)) is not None:
                return lock
        raise StartError(f"{self.name}: another process still uses {self.data}: end it, then start again")

    def _leftovers(self) -> list[psutil.Process]:
        running = psutil.process_iter(["cmdline"])
        return [each for each in running if str(self._named_in_arguments()) in (each.info["cmdline"] or ())]

    @abstractmethod
    def _named_in_arguments(self) -> Path:
        """A path of this server among its arguments, by which a leftover is recognised."""

    def _prepare(self) -> None:
        self._privileges = find_privileges(self.data, self._needed())
        known = self._identity or Identity.load(self._identity_path)
        self._identity = known or Identity.invent()
        if not self._announced and not port_is_free(self._identity.port):
            self._identity = replace(self._identity, port=free_port())
        self._passwords_are_new = known is None
        self._install()
        # Written last: if we die before, the next start invents passwords again and sets them again.
        self._save_identity()

    def _save_identity(self) -> None:
        write_json(self._identity_path, asdict(self.identity))

    def _try_start(self, lock: int) -> bool:
        """Start once; False if the port was taken from under us and another one may be chosen."""
        before = self.log.stat().st_size if self.log.exists() else 0
        self._process = self._spawn([str(self._program()), *self._arguments()], lock)
        if poll(lambda: self.pid is None or self._ready(), READY_TIMEOUT_S) and self.pid is not None:
            return True
        code = self._process.poll()
        self.stop()
        if not self._announced and code is not None and not port_is_free(self.identity.port):
            return False
        what = f"did not answer within {READY_TIMEOUT_S:.0f} s" if code is None else f"ended with exit code {code}"
        raise StartError(f"{self.name} {what} while starting in {self.home}:\n{tail(self.log, since=before)}")

    def _spawn(self, program: list[str], lock: int) -> subprocess.Popen[bytes]:
        with open_log(self.log) as log:
            return subprocess.Popen(  # noqa: S603  our own program and arguments, no shell
                self._privileges.command(program, death_signal=self.end_signals[0]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env=server_environment(),
                pass_fds=(lock,),
                start_new_session=True,
            )

    def _ready(self) -> bool:
        if not self._provision():
            return False
        self.version = self.ask_version(self.identity.port, self.identity.password) or ""
        return bool(self.version)

    def _make_data(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        self._privileges.own(path)

    def _write_private(self, path: Path, content: str) -> None:
        """Write a file that only the server's user can read."""
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(content, encoding="utf-8")
        self._privileges.own(path)


def free_port() -> int:
    """Choose a port on which nobody listens."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if port_is_free(port):
            return port
    raise ConfigurationError(f"no free port between {_PORTS.start} and {_PORTS.stop} on {HOST}")


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def end_processes(processes: list[psutil.Process], signals: tuple[signal.Signals, ...]) -> None:
    """Send the signals one after the other, each with time to act, until every process is gone."""
    for each in signals:
        _send(each, processes)
        _, processes = psutil.wait_procs(processes, timeout=_END_TIMEOUT_S)


def _send(which: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(which)


def server_environment() -> dict[str, str]:
    """Build what a server sees: nothing of the caller (PGDATA, PGPORT, LANG) may change how it runs."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
