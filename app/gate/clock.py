"""The stopped clock: while a strategy is verified every clock it can read shows one moment, which the gate chooses.

Python's own clocks only; numpy's ``datetime64("now")`` and native code read the machine's.
"""

from __future__ import annotations

import datetime as datetimes
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date as _real_date
from datetime import datetime as _real_datetime
from types import ModuleType
from typing import Any

#: What the clock shows, epoch seconds: 2026-03-04 05:06:07.089 UTC, a Wednesday.
MOMENT_S = 1_772_600_767.089

#: Other moments, seconds later: another second, minute, hour, weekday, month, year; no round numbers, so that whatever
#: a strategy reads off the clock differs at one of them.
SHIFTS_S = (1.318, 61.77, 5_021.3, 47_893.9, 193_311.6, 2_900_431.2, 40_117_003.4, 171_999_873.8)


class StoppedClock:
    """Replaces the clocks of this process for good."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def install(self, modules: Sequence[ModuleType]) -> None:
        """Take over the clocks of `time` and `datetime`, and wherever a module has imported them by name."""
        replaced = {id(real): (real, fake) for real, fake in self._fakes()}
        for module in (time, datetimes, *modules):
            for name, value in list(vars(module).items()):
                if id(value) in replaced:
                    setattr(module, name, replaced[id(value)][1])

    def now_s(self) -> float:
        """Return what it shows, epoch seconds."""
        return MOMENT_S + self.shift_s

    def _fakes(self) -> list[tuple[object, object]]:
        seconds = dict.fromkeys(("time", "monotonic", "perf_counter", "process_time", "thread_time"), self.now_s)
        fakes: list[tuple[object, object]] = [(getattr(time, name), read) for name, read in seconds.items()]
        fakes += [(getattr(time, f"{name}_ns"), lambda: round(self.now_s() * 1e9)) for name in seconds]
        fakes += [(real, self._defaulted(real)) for real in (time.gmtime, time.localtime, time.ctime)]
        fakes.append((time.strftime, self._strftime(time.strftime, time.localtime)))
        return [*fakes, (_real_datetime, _stopped_datetime(self)), (_real_date, _stopped_date(self))]

    def _defaulted(self, real: Callable[[float], Any]) -> Callable[..., Any]:
        return lambda seconds=None: real(self.now_s() if seconds is None else seconds)

    def _strftime(self, real: Callable[..., str], localtime: Callable[[float], Any]) -> Callable[..., str]:
        return lambda form, moment=None: real(form, localtime(self.now_s()) if moment is None else moment)


class _LikeReal(type):
    """Makes a real datetime an instance of the class in its place."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


def _stopped_datetime(clock: StoppedClock) -> type:
    class Datetime(_real_datetime, metaclass=_LikeReal):
        @classmethod
        def now(cls, tz: datetimes.tzinfo | None = None) -> Any:
            return _real_datetime.fromtimestamp(clock.now_s(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return _real_datetime.fromtimestamp(clock.now_s(), datetimes.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return _real_datetime.fromtimestamp(clock.now_s())  # noqa: DTZ006 - naive, as the real one

    Datetime.__name__ = Datetime.__qualname__ = "datetime"
    return Datetime


def _stopped_date(clock: StoppedClock) -> type:
    class Date(_real_date, metaclass=_LikeReal):
        @classmethod
        def today(cls) -> Any:
            return _real_date.fromtimestamp(clock.now_s())  # noqa: DTZ012 - as the real one

    Date.__name__ = Date.__qualname__ = "date"
    return Date


def user_modules(names: Sequence[str]) -> list[ModuleType]:
    """Return the loaded modules of some names."""
    return [sys.modules[name] for name in names if name in sys.modules]
