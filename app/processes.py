"""Child processes of `demo` and `up`: started with a log file each, and never left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

#: Seconds a child gets between SIGTERM and SIGKILL: longer than a worker's own shutdown takes when idle.
PATIENCE_S = 20.0

#: prctl option: the signal a process gets when its parent dies (linux/prctl.h).
PR_SET_PDEATHSIG = 1


class Children:
    """Processes of ours: they end when told to, and when this process dies however it dies.

    Args:
        logs: folder of their log files.
        environment: added to the environment of each.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start ``python -m module arguments`` with its output in ``logs/name.log``."""
        self._logs.mkdir(parents=True, exist_ok=True)
        # a child that is started again must not wipe out why it died
        with self.log(name).open("ab" if name in self._running else "wb") as output:
            self._running[name] = subprocess.Popen(  # noqa: S603 - our own modules, no shell
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # Ctrl-C reaches only us: children are ended in order, by us
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def log(self, name: str) -> Path:
        """Return the log file of a child."""
        return self._logs / f"{name}.log"

    def dead(self) -> list[str]:
        """Return the names of the children that ended by themselves."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def tail(self, name: str, lines: int = 12) -> str:
        """Return the last lines of a child's log."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    def exit_code(self, name: str) -> int | None:
        """Return the exit code of a child, None while it runs."""
        return self._running[name].poll()

    def pid(self, name: str) -> int:
        """Return the process id of a child, which is also that of its session and process group."""
        return self._running[name].pid

    def signal(self, name: str, sig: signal.Signals) -> None:
        """Send a signal to a child; nothing happens if it has ended."""
        self._running[name].send_signal(sig)

    def kill(self, name: str) -> None:
        """End a child as the loss of its machine would: SIGKILL to all of its processes. Returns once it is dead."""
        _kill_group(self._running[name])

    def wait(self, name: str, seconds: float = PATIENCE_S) -> int:
        """Wait until a child has ended and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end.
        """
        return self._running[name].wait(seconds)

    def discard(self, name: str) -> None:
        """End a child as `kill` does and stop watching it. Idempotent."""
        if name in self._running:
            self.kill(name)
            self.forget(name)

    def forget(self, name: str) -> None:
        """Stop watching a child that ended."""
        self._running.pop(name)

    def stop(self) -> None:
        """End all children: SIGTERM to each, SIGKILL to what is left after a while. Idempotent."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                _kill_group(process)
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run_module(module: str, arguments: Sequence[str]) -> None:
    """Become ``python -m module arguments``: signals and exit code are then its own."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is wanted


def die_with_parent(sig: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies, however it dies. Linux only; else nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, sig)


def _die_with_parent() -> None:
    die_with_parent(signal.SIGTERM)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # a worker's slots are in its session: killed with it, or they would live on
    if process.poll() is None:  # once it is reaped its number may be somebody else's
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
