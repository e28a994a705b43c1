"""Modules of our own under the names that strategy files import, in place only while such a file loads or runs.

The names of freqtrade always mean ours here, also where freqtrade is installed: what a strategy computes must not
depend on that. Of other packages ours stand in for what is not installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import RLock
from types import ModuleType
from typing import Any

from app.errors import ConfigurationError
from app.strategies.freqtrade import (
    enums,
    informative,
    interface,
    parameters,
    placeholders,
    provider,
    qtpylib,
    stoplosses,
    timeframes,
)


class OperationalException(Exception):  # noqa: N818  # the name strategies know it by
    """What a strategy may raise or catch under this name."""


class NotOfferedError(ConfigurationError, ModuleNotFoundError):
    """A module or name that there is no stand-in for; an ImportError too, which strategies may expect and catch."""


def _taken(module: ModuleType, *names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}


_PARAMETERS = _taken(
    parameters,
    "BaseParameter",
    "NumericParameter",
    "IntParameter",
    "DecimalParameter",
    "RealParameter",
    "BooleanParameter",
    "CategoricalParameter",
)
_TIMES = _taken(
    timeframes,
    "timeframe_to_minutes",
    "timeframe_to_seconds",
    "timeframe_to_msecs",
    "timeframe_to_prev_date",
    "timeframe_to_next_date",
)
_TRADES = _taken(placeholders, "Trade", "LocalTrade", "Order", "PairLocks")
_SERIES = _taken(informative, "informative", "merge_informative_pair")
_STOPS = _taken(stoplosses, "stoploss_from_open", "stoploss_from_absolute")
_BASE = {"IStrategy": interface.IStrategy}
_QTPYLIB = {name: value for name, value in vars(qtpylib).items() if callable(value) and name[0].islower()}

#: What may be imported, by module; a module without an entry of its own only holds others.
FREQTRADE: Mapping[str, Mapping[str, Any]] = {
    "freqtrade": {},
    "freqtrade.strategy": {**_BASE, **_PARAMETERS, **_TIMES, **_TRADES, **_SERIES, **_STOPS},
    "freqtrade.strategy.interface": {**_BASE, **_TRADES, **_TIMES},
    "freqtrade.strategy.hyper": _PARAMETERS,
    "freqtrade.strategy.parameters": _PARAMETERS,
    "freqtrade.strategy.strategy_helper": {**_SERIES, **_STOPS, **_TIMES},
    "freqtrade.strategy.informative_decorator": _SERIES,
    "freqtrade.exchange": {**_TIMES, "date_minus_candles": timeframes.date_minus_candles},
    "freqtrade.persistence": _TRADES,
    "freqtrade.wallets": {"Wallets": placeholders.Wallets},
    "freqtrade.enums": _taken(enums, "RunMode", "CandleType", "TradingMode"),
    "freqtrade.constants": {"Config": dict[str, Any]},
    "freqtrade.exceptions": {"OperationalException": OperationalException},
    "freqtrade.data": {},
    "freqtrade.data.dataprovider": {"DataProvider": provider.DataProvider},
    "freqtrade.vendor": {},
    "freqtrade.vendor.qtpylib": {},
    "freqtrade.vendor.qtpylib.indicators": _QTPYLIB,
}
TECHNICAL: Mapping[str, Mapping[str, Any]] = {"technical": {}, "technical.qtpylib": _QTPYLIB}


class _StandIn(ModuleType):
    """A module that says what it has when it is asked for something else."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or f"{self.__name__}.{name}" in (*FREQTRADE, *TECHNICAL):
            raise AttributeError(name)  # a module inside: the import goes on to look for it
        if self.__name__.endswith(("qtpylib.indicators", "technical.qtpylib")):
            found = _from_technical(name)
            if found is not None:
                return found
        raise NotOfferedError(f"{self.__name__}.{name} is not offered; {self.__name__} has {_listed(self)}")


class _Finder(MetaPathFinder, Loader):
    """Finds and makes the stand-ins of one package."""

    def __init__(self, package: str, content: Mapping[str, Mapping[str, Any]]) -> None:
        self._package = package
        self._content = content

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Return the spec of a stand-in; a module of the package that is none is refused by name."""
        del path, target
        if fullname != self._package and not fullname.startswith(f"{self._package}."):
            return None
        if fullname not in self._content:
            there = ", ".join(self._content)
            raise NotOfferedError(f"module {fullname} is not offered; of {self._package} there are {there}")
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the module of a spec."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module with what it offers."""
        vars(module).update(self._content[module.__name__])


_OURS = _Finder("freqtrade", FREQTRADE)
_LAST_RESORT = _Finder("technical", TECHNICAL)
_lock = RLock()
_depth = 0
_modules: dict[str, ModuleType] = {}


@contextmanager
def standing_in() -> Iterator[None]:
    """Put the stand-ins in place, and whatever was there back afterwards. May be nested; one thread at a time."""
    global _depth  # how deep the one lock is held
    with _lock:
        _depth += 1
        before = _enter() if _depth == 1 else {}
        try:
            yield
        finally:
            _depth -= 1
            if _depth == 0:
                _leave(before)


def _enter() -> dict[str, ModuleType]:
    before = _take("freqtrade")
    sys.modules.update(_modules)
    sys.meta_path.insert(0, _OURS)
    sys.meta_path.append(_LAST_RESORT)  # asked when a real one was not found
    return before


def _leave(before: Mapping[str, ModuleType]) -> None:
    sys.meta_path.remove(_OURS)
    sys.meta_path.remove(_LAST_RESORT)
    _modules.update({**_take("freqtrade"), **_take("technical", ours=True)})
    sys.modules.update(before)


def _take(package: str, *, ours: bool = False) -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names if not ours or isinstance(sys.modules[name], _StandIn)}


def _from_technical(name: str) -> Any:
    """Return what ours lacks from the real technical.qtpylib, None when there is none."""
    try:
        real = importlib.import_module("technical.vendor.qtpylib.indicators")
    except ImportError:
        return None
    return getattr(real, name, None)


def _listed(module: ModuleType) -> str:
    return ", ".join(sorted(name for name in vars(module) if not name.startswith("_"))) or "nothing"
