"""The guard: an audit hook that refuses access to network, files and processes while a strategy is evaluated.

It tells honest mistakes, it is no wall: native code, and Python code that means harm, can get around it.
Source: PEP 578 and the audit events table of Python's library reference.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import all_suffixes
from typing import Any

from app.strategies.verification.probe import ForbiddenAccessError
from app.strategies.verification.report import Reason

_NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "telnetlib.", "nntplib.")
_OF_OS = ("fork", "exec", "posix_spawn", "spawn", "system", "startfile", "kill", "putenv", "unsetenv")
_PROCESS = ("subprocess.", "pty.", "signal.", "webbrowser.", *(f"os.{name}" for name in _OF_OS))
_FILE = ("open", "os.", "shutil.", "tempfile.", "glob.", "pathlib.", "sqlite3.")

#: Importing reads these, at whatever moment.
_MODULES = tuple(all_suffixes())

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """Refuses access while it is up; audit hooks stay for the life of a process."""

    def __init__(self) -> None:
        self._is_up = False
        self._caught: ForbiddenAccessError | None = None

    def install(self) -> None:
        """Hook into the interpreter; once per process."""
        sys.addaudithook(self._hear)

    @contextmanager
    def up(self) -> Iterator[None]:
        """Refuse access in the body.

        Raises:
            ForbiddenAccessError: something was tried, even if the body swallowed the refusal.
        """
        self._is_up, self._caught = True, None
        try:
            yield
        finally:
            self._is_up = False
        if self._caught is not None:
            raise self._caught

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_up:
            return
        reason = classify(event)
        if reason is None or (event in ("open", "os.listdir") and self._is_import(event, arguments)):
            return
        self._caught = self._caught or ForbiddenAccessError(reason, _told(event, arguments))
        raise self._caught

    def _is_import(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "os.listdir":
            return sys._getframe(2).f_code.co_filename.startswith("<frozen importlib")
        path, _mode, flags = arguments
        return isinstance(path, str) and path.endswith(_MODULES) and not flags & _WRITES


def classify(event: str) -> Reason | None:
    """Return what kind of access an audit event is; None for none."""
    for reason, prefixes in ((Reason.NETWORK, _NETWORK), (Reason.PROCESS, _PROCESS), (Reason.FILE, _FILE)):
        if event.startswith(prefixes):
            return reason
    return None


def _told(event: str, arguments: tuple[Any, ...]) -> str:
    return f"{event}({', '.join(f'{each!r:.80}' for each in arguments)})"
