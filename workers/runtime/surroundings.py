"""What strategies of one process share without being handed it, and how it stays what it was.

Before strangers' code runs, what it may change is noted; what it did change is put back. Some things are looked at
after every job, because they would change the answer of the next one: numpy's and decimal's contexts, the filters of
warnings, the recursion limit. The rest is looked at once a chunk: environment, folder, locale, the handler of the soft
limit's signal, the garbage collector.

What is not undone: functions replaced in modules that others use too, such as numpy's. That is no accident any more.
"""

from __future__ import annotations

import decimal
import gc
import locale
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from typing import TypeVar, TypeVarTuple

import structlog

log = structlog.get_logger()

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")

#: Seconds between two lines of one process about the same: who changes something may do so with every job.
SAY_EVERY_S = 10.0

#: When what was said last, monotonic seconds.
_said: dict[str, float] = {}

#: Of the decimal module: its context is changed in place, so that a copy of ours would share the one it points to.
_DECIMAL = "decimal_context"

#: What new contexts of decimal are copies of.
_new = decimal.DefaultContext

#: The environment as bytes. Its public face takes 30 microseconds to copy, this one less than one.
_environment: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]


class Surroundings:
    """What this process was like when this was made, for one chunk."""

    def __init__(self) -> None:
        self._context = _without_decimal()
        self._filters, self._kept = warnings.filters, list(warnings.filters)
        self._count = len(self._kept)
        self._first = self._kept[0] if self._kept else None
        self._recursion = sys.getrecursionlimit()
        self._precision, self._rounding = _new.prec, _new.rounding
        self._environment = dict(_environment)
        self._folder = _folder()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._alarm = signal.getsignal(signal.SIGALRM)
        self._collects = gc.isenabled()

    def run(self, call: Callable[[*Arguments], T], *args: *Arguments) -> T:
        """Run one job's code in a context of its own, and put back what would change the next one's answer."""
        try:
            return self._context.copy().run(call, *args)
        finally:
            filters = warnings.filters
            if (
                filters is not self._filters
                or len(filters) != self._count
                or (self._count and filters[0] is not self._first)
                or sys.getrecursionlimit() != self._recursion
                or _new.prec != self._precision
                or _new.rounding != self._rounding
            ):
                self._restore_quickly()

    def restore(self) -> None:
        """Put everything back, and say what had been changed."""
        self._restore_quickly()  # a job may have been interrupted while this was done after it
        _say(list(self._restored()))

    def _restore_quickly(self) -> None:
        changed = []
        if warnings.filters is not self._filters or self._filters[:] != self._kept:
            self._filters[:] = self._kept  # type: ignore[index]  # typed as a sequence, and a list
            warnings.filters = self._filters
            warnings.simplefilter("default", lineno=1)  # whoever caches what applies looks again
            self._filters[:] = self._kept  # type: ignore[index]
            changed.append("filters of warnings")
        if sys.getrecursionlimit() != self._recursion:
            sys.setrecursionlimit(self._recursion)
            changed.append("recursion limit")
        if (_new.prec, _new.rounding) != (self._precision, self._rounding):
            _new.prec, _new.rounding = self._precision, self._rounding
            changed.append("decimal.DefaultContext")
        _say(changed)

    def _restored(self) -> Iterator[str]:
        if _environment != self._environment:
            for name in _environment.keys() - self._environment.keys():
                del os.environb[name]
            for name, value in self._environment.items():
                os.environb[name] = value
            yield "environment"
        if self._folder is not None and _folder() != self._folder:
            with suppress(OSError):  # it was removed meanwhile
                os.chdir(self._folder)
            yield "working folder"
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
            yield "locale"
        if signal.getsignal(signal.SIGALRM) is not self._alarm:
            signal.signal(signal.SIGALRM, self._alarm)
            yield "handler of SIGALRM"
        if gc.isenabled() != self._collects:
            (gc.enable if self._collects else gc.disable)()
            yield "garbage collector"


@contextmanager
def kept() -> Iterator[Surroundings]:
    """Surround code of strategies; afterwards the process is what it was."""
    surroundings = Surroundings()
    try:
        yield surroundings
    finally:
        surroundings.restore()


def _without_decimal() -> Context:
    """Return a copy of the current context in which decimal makes itself a new one."""
    context = Context()
    for variable, value in copy_context().items():
        if variable.name != _DECIMAL:
            context.run(variable.set, value)
    return context


def _say(changed: list[str]) -> None:
    now, what = time.monotonic(), ", ".join(changed)
    if changed and now - _said.get(what, -math.inf) > SAY_EVERY_S:
        _said[what] = now
        log.warning("a strategy changed what others share; it was put back", changed=changed)


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a text is what os.chdir takes, and nothing else is done with it
    except FileNotFoundError:  # it was removed
        return None
