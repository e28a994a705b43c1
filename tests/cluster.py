"""Worker nodes for pytest-celery without a container engine: real processes behind its node interface.

pytest-celery reaches everything through a node and its container. `WorkerProcess` and `RedisServer` stand in
the container's place, so that clusters, `celery_setup` and the tests written for them stay what they are.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from celery import Celery
from pytest_celery import CeleryTestBroker, CeleryTestWorker
from pytest_docker_tools.exceptions import TimeoutError as NotLoggedError

from app.broker import QUEUES
from app.processes import PR_SET_PDEATHSIG
from app.settings import Settings
from tests.building import REPOSITORY, environment
from tests.waiting import wait_until

#: Logged by a worker node once it consumes.
READY = "ready."

#: Seconds a node may take from its start until it consumes, on a busy machine.
START_TIMEOUT_S = 60.0


class WorkerProcess:
    """One worker node, `celery -A workers.main worker`, in a session of its own.

    Args:
        name: the part of its node name before the @.
        settings: what it runs with.
        log: file that takes its output.
        slots: its pool processes.
        queues: that it consumes, separated by commas; all when None.
    """

    def __init__(self, name: str, settings: Settings, log: Path, *, slots: int = 2, queues: str | None = None) -> None:
        self.name = name
        self._settings = settings
        self._log = log
        self._slots = slots
        self._queues = () if queues is None else ("-Q", queues)
        self._process = self._start()

    @property
    def id(self) -> str:
        """The process id, as text: what names it on this machine."""
        return str(self._process.pid)

    @property
    def pid(self) -> int:
        """Process id of the main process, which is also that of its process group."""
        return self._process.pid

    @property
    def status(self) -> str:
        """`running` or `exited`, as a container engine says it."""
        return "running" if self._process.poll() is None else "exited"

    @property
    def exit_code(self) -> int | None:
        """Exit code of the main process; None while it runs."""
        return self._process.poll()

    def slots(self) -> set[int]:
        """Return the process ids of its pool."""
        return {child.pid for child in psutil.Process(self.pid).children()}

    def ready(self) -> bool:
        """Wait until it consumes.

        Raises:
            AssertionError: it ended, or took too long; with its log.
        """
        try:
            wait_until(lambda: READY in self.logs() or self.status == "exited", "worker starts", START_TIMEOUT_S)
        finally:
            if READY not in self.logs():
                sys.stderr.write(self.logs())
        assert self.status == "running", f"worker {self.name} ended with exit code {self.exit_code}:\n{self.logs()}"
        return True

    def logs(self) -> str:
        """Return everything it has written."""
        return self._log.read_text(errors="replace")

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal to the main process; SIGKILL goes to its slots as well, as when a machine is lost."""
        number = _number(signal)
        if number == _SIGKILL:
            os.killpg(self.pid, number)
        else:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait until it has ended and return its exit code.

        Raises:
            AssertionError: it goes on; with what its threads do and the end of its log.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGUSR1)  # Celery answers with the stack of every thread
            wait_until(lambda: "LOCAL VARIABLES" in self.logs(), "it shows its stacks", 10.0)
            raise AssertionError(f"{self.name} goes on after {timeout_s:g} s:\n{self.logs()[-12_000:]}") from None

    def reload(self) -> None:
        """Nothing is cached: the operating system is asked every time."""

    def restart(self, timeout: int = 10) -> None:
        """End it politely, then start it again under the same name with an empty log."""
        if self.status == "running":
            self.kill("SIGTERM")
            self.wait(timeout)
        self._process = self._start()
        self.ready()

    def teardown(self) -> None:
        """Leave no process behind."""
        if self.status == "running":
            self.kill("SIGKILL")
        self.wait()

    def version(self) -> str:
        """Version of Celery."""
        return version("celery")

    def log_level(self) -> str:
        """Level it logs at."""
        return self._settings.log.level

    def worker_name(self) -> str:
        """The part of its node name before the @."""
        return self.name

    def worker_queue(self) -> str:
        """The queues it consumes, separated by commas."""
        return ",".join(QUEUES)

    def _start(self) -> subprocess.Popen[bytes]:
        # mingling and gossip are about nodes that share revoked tasks: a second of every start
        command = ("celery", "-A", "workers.main", "worker", "--without-mingle", "--without-gossip")
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command, "-n", f"{self.name}@%h", "-c", str(self._slots), *self._queues],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env=environment(self._settings),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )


class WorkerNode(CeleryTestWorker):  # type: ignore[misc]  # pytest-celery ships no types
    """pytest-celery's worker node on a process."""

    def __init__(self, process: WorkerProcess, app: Celery | None = None) -> None:
        super().__init__(process, app)
        self.process = process

    def hostname(self) -> str:
        """Name of the node, as the fleet knows it."""
        return f"{self.process.name}@{socket.gethostname()}"

    def wait_for_log(self, log: str, message: str = "", timeout: float = 30.0) -> None:
        """Wait for a text in the log, without pytest-celery's pause of a second."""
        try:
            wait_until(lambda: log in self.logs(), message or f"{self.hostname()} logs {log!r}", timeout)
        except AssertionError as error:
            raise NotLoggedError(f"{error}; its log:\n{self.logs()}") from error

    def get_running_processes_info(
        self, columns: list[str] | None = None, filters: dict[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """Describe its main process and its slots by psutil's attributes."""
        main = psutil.Process(self.process.pid)
        found = [each.as_dict(columns) for each in (main, *main.children(recursive=True))]
        return [info for info in found if all(info.get(key) == value for key, value in (filters or {}).items())]


class RedisServer:
    """The broker in a container's place: it runs already, as long as the test process."""

    name = "redis"
    id = "redis"
    status = "running"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def celeryconfig(self) -> dict[str, str]:
        """The address, as pytest-celery asks for it."""
        return {"url": self._settings.broker_dsn, "host_url": self._settings.broker_dsn}

    def ready(self) -> bool:
        """Nothing to wait for."""
        return True

    def teardown(self) -> None:
        """Nothing to end: it belongs to the test session."""


class BrokerNode(CeleryTestBroker):  # type: ignore[misc]  # pytest-celery ships no types
    """pytest-celery's broker node on the Redis of the test session."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(RedisServer(settings))


_SIGKILL = signal.SIGKILL


def _number(word: str | int) -> int:
    return signal.Signals[word] if isinstance(word, str) else word


def _die_with_parent() -> None:
    # a test process that is killed itself leaves no worker behind
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
