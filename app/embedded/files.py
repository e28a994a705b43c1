"""What the embedded servers leave on disk: locks that die with their holder, and small JSON files.

A lock here is a flock on an open file description: the kernel releases it when the last process that inherited the
descriptor is gone, however it went. Nothing on disk can therefore claim that a dead process lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

Answer = TypeVar("Answer")

#: Seconds between two looks at something that has no event to wait for.
POLL_S = 0.05
#: Bytes after which a log is set aside: months of ordinary work.
_LOG_LIMIT_BYTES = 10_000_000


class Lock:
    """A lock that is held; closing it, or the death of every process that inherited it, releases it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, shared: bool = False) -> Lock | None:
        """Lock a file without waiting.

        Args:
            path: the lock file; created when missing.
            shared: many holders of a shared lock, or one of an exclusive lock.

        Returns:
            The lock, or None if somebody else holds it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def fileno(self) -> int:
        """Return the descriptor, for a child process that shall inherit the lock."""
        return self._descriptor

    def close(self) -> None:
        """Let go. Never LOCK_UN: that would release it for a child that inherited it as well."""
        os.close(self._descriptor)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock exclusively; asking holds it shared for an instant."""
    if (lock := Lock.take(path, shared=True)) is None:
        return True
    lock.close()
    return False


def poll(ask: Callable[[], Answer | None], timeout_s: float) -> Answer | None:
    """Ask until the answer is truthy; None once `timeout_s` seconds have passed without one."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)
    return answer


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file by one JSON object, atomically and readable for its owner only."""
    fresh = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=2)
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, or an empty one if it is missing or makes no sense."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending; it is readable for its owner only, because statements in it may hold secrets."""
    set_aside(path)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")


def set_aside(log: Path) -> None:
    """Move what a log holds to `.1` once it is too long; whoever has it open goes on writing at its new end."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT_BYTES:
            shutil.copy(log, log.with_name(log.name + ".1"))  # with its permissions
            os.truncate(log, 0)


def tail(path: Path, *, since: int = 0, lines: int = 12) -> str:
    """Return the last lines of a log, from byte `since` on; empty if there is no such file."""
    try:
        with path.open("rb") as stream:
            stream.seek(since)
            text = stream.read()[-8192:].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
