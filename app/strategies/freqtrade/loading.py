"""From a module or a file to a strategy class, and from the class to an instance with its parameters in force."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pandas import DataFrame, Series

from app.errors import ConfigurationError
from app.strategies.freqtrade.enums import CandleType, RunMode, TradingMode
from app.strategies.freqtrade.interface import IStrategy
from app.strategies.freqtrade.parameters import BaseParameter, space_of
from app.strategies.freqtrade.placeholders import Wallets
from app.strategies.freqtrade.provider import DataProvider
from app.strategies.freqtrade.standins import standing_in

#: How packages that strategies like to import are had; any other is the user's own.
_EXTRAS = {"technical": "freqtrade", "pandas_ta": "freqtrade", "scipy": "freqtrade"}


@dataclass(frozen=True, slots=True)
class Source:
    """A strategy class as it was found, and what its JSON file says."""

    cls: type[IStrategy]
    path: Path
    overrides: Mapping[str, Any]
    """The ``params`` of the JSON file beside it: ``buy``, ``sell``, ``roi``, ``stoploss``, ``trailing``."""

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.cls.__name__


def load_module(module: str, name: str) -> Source:
    """Load a strategy class of an importable module. The caller has checked that the module may be loaded.

    Raises:
        ConfigurationError: it cannot be imported, or is not a strategy that can be run.
    """
    imported = _guarded(module, lambda: importlib.import_module(module))
    return _source(imported, name, module)


def load_file(path: Path, name: str = "") -> Source:
    """Load the strategy class of a file that a person named, as running it with python would.

    Args:
        path: a .py file; what stands beside it can be imported.
        name: of the class; needed when the file has several strategies and none is called like the file.

    Raises:
        ConfigurationError: it cannot be read or imported, or is not a strategy that can be run.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"{path}: expected a Python file with a freqtrade strategy")
    module = importlib.util.module_from_spec(spec)
    execute = spec.loader.exec_module

    def load() -> ModuleType:
        before = sys.modules.get(path.stem)
        sys.path.insert(0, str(path.parent))
        sys.modules[path.stem] = module
        try:
            execute(module)
        finally:
            sys.path.remove(str(path.parent))
            _put_back(path.stem, before)
        return module

    return _source(_guarded(str(path), load), name, str(path))


def create(source: Source, values: Mapping[str, Any], dp: DataProvider, config: Mapping[str, Any]) -> IStrategy:
    """Create an instance with every value in force: a definition's over the JSON file's over the class dicts'.

    Nothing is shared between two instances that the class itself does not compute: each has its own parameters and
    its own copy of the class's dicts, lists and sets.

    Args:
        source: the class.
        values: parameter values of a definition, by attribute name.
        dp: the candles at hand.
        config: what `self.config` holds.

    Raises:
        ConfigurationError: a parameter has no space, or the JSON file holds something of the wrong shape.
    """
    strategy = source.cls.__new__(source.cls)
    _detach(strategy)
    strategy.dp, strategy.wallets = dp, Wallets
    strategy.timeframe = config["timeframe"]
    _apply_settings(strategy, source.overrides)
    strategy.__init__(dict(config))  # type: ignore[misc]  # attributes first: its __init__ may read them
    strategy.bot_start()
    for name, parameter in find_parameters(strategy).items():
        parameter.name = name
        _set_value(strategy, name, parameter, source.overrides, values)
    return strategy


def try_out(source: Source) -> IStrategy:
    """Create an instance without candles, to see whether it can be and which parameters it has.

    Raises:
        ConfigurationError: it cannot be created.
    """
    pair, timeframe = "BASE/QUOTE", str(getattr(source.cls, "timeframe", "1h"))
    config = build_config(source, pair, timeframe, RunMode.OTHER)
    with standing_in():
        try:
            return create(source, {}, DataProvider(pair, timeframe, _no_candles(), RunMode.OTHER), config)
        except (Exception, SystemExit) as error:  # user code
            raise ConfigurationError(
                f"{source.path}{_line_of(error)}: strategy {source.name} cannot be created: {error}"
            ) from error


def build_config(source: Source, pair: str, timeframe: str, runmode: RunMode) -> dict[str, Any]:
    """Build what a strategy reads as `self.config`: only what is true here."""
    futures = source.cls.can_short
    return {
        "strategy": source.name,
        "timeframe": timeframe,
        "stake_currency": pair.partition("/")[2],
        "runmode": runmode,
        "dry_run": True,
        "trading_mode": TradingMode.FUTURES if futures else TradingMode.SPOT,
        "candle_type_def": CandleType.FUTURES if futures else CandleType.SPOT,
        "exchange": {"name": "", "pair_whitelist": [pair]},
    }


def find_parameters(strategy: IStrategy) -> dict[str, BaseParameter]:
    """Return the parameters of an instance, by attribute name."""
    return {name: value for name, value in sorted(vars(strategy).items()) if isinstance(value, BaseParameter)}


def _no_candles() -> DataFrame:
    return DataFrame({name: Series(dtype="float64") for name in ("open", "high", "low", "close", "volume")})


def _set_value(
    strategy: IStrategy, name: str, parameter: BaseParameter, overrides: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    space = space_of(name, parameter)
    listed = {**(getattr(strategy, f"{space}_params", None) or {}), **(overrides.get(space) or {})}
    if parameter.load and name in listed:
        parameter.value = listed[name]
    if name in values:
        parameter.value = values[name]


def _detach(strategy: IStrategy) -> None:
    classes = [cls for cls in reversed(type(strategy).__mro__) if cls not in (object, IStrategy)]
    attributes = {name: value for cls in classes for name, value in vars(cls).items()}
    for name, value in attributes.items():
        if isinstance(value, dict | list | set) and not name.startswith("__"):
            setattr(strategy, name, copy.deepcopy(value))
        elif isinstance(value, BaseParameter):
            setattr(strategy, name, copy.copy(value))


def _apply_settings(strategy: IStrategy, overrides: Mapping[str, Any]) -> None:
    if "roi" in overrides:
        strategy.minimal_roi = overrides["roi"]
    for group in ("stoploss", "trailing"):
        for name, value in (overrides.get(group) or {}).items():
            setattr(strategy, name, value)


def _put_back(name: str, module: ModuleType | None) -> None:
    if module is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module


def _guarded(where: str, load: Callable[[], ModuleType]) -> ModuleType:
    with standing_in():
        try:
            return load()
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}{_line_of(error)}: {error}") from error
        except (Exception, SystemExit) as error:  # importing runs user code
            raise ConfigurationError(f"{where}{_line_of(error)}: {_explained(error)}") from error


def _explained(error: BaseException) -> str:
    package = (getattr(error, "name", None) or "").partition(".")[0]
    hint = f"; install candlefleet[{_EXTRAS[package]}]" if package in _EXTRAS else ""
    return f"cannot be imported: {type(error).__name__}: {error}{hint}"


def _line_of(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    return f", line {frames[-1].lineno}" if frames else ""


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen") or Path(filename).parent == Path(__file__).parent or "importlib" in filename


def _source(module: ModuleType, name: str, where: str) -> Source:
    cls = _find_class(module, name, where)
    _check_class(cls, where)
    path = Path(module.__file__ or "") if cls.__module__ == module.__name__ else Path(inspect.getfile(cls))
    return Source(cls, path, _read_overrides(path, cls.__name__))


def _find_class(module: ModuleType, name: str, where: str) -> type[IStrategy]:
    found = {key: value for key, value in vars(module).items() if _is_strategy(value) and value is not IStrategy}
    own = {key: value for key, value in found.items() if value.__module__ == module.__name__}
    wanted = name or (next(iter(own)) if len(own) == 1 else module.__name__.rpartition(".")[2])
    if wanted not in found:
        there = ", ".join(own) or "none"
        raise ConfigurationError(f"{where}: expected a class {wanted} derived from IStrategy; classes in it: {there}")
    cls: type[IStrategy] = found[wanted]
    return cls


def _is_strategy(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, IStrategy)


def _check_class(cls: type[IStrategy], where: str) -> None:
    problems = [*_missing_methods(cls), *_wrong_settings(cls)]
    if problems:
        raise ConfigurationError(f"{where}: strategy {cls.__name__}: {'; '.join(problems)}")


def _missing_methods(cls: type[IStrategy]) -> list[str]:
    wanted = [
        ("populate_indicators",),
        ("populate_entry_trend", "populate_buy_trend"),
        ("populate_exit_trend", "populate_sell_trend"),
    ]
    return [
        f"expected a method {names[0]}, found none"
        for names in wanted
        if all(getattr(cls, name) is getattr(IStrategy, name) for name in names)
    ]


def _wrong_settings(cls: type[IStrategy]) -> list[str]:
    problems = []
    if not _is_number(getattr(cls, "stoploss", None)):
        problems.append(f"expected stoploss as a negative ratio such as -0.1, found {getattr(cls, 'stoploss', None)!r}")
    count = cls.startup_candle_count
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        problems.append(f"expected startup_candle_count as a whole number of at least 0, found {count!r}")
    return problems


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_overrides(path: Path, name: str) -> Mapping[str, Any]:
    """Read the JSON file beside a strategy: called like the file, else like the class."""
    for file in (path.with_suffix(".json"), path.with_name(f"{name}.json")):
        if file.is_file():
            return _read_json(file, name)
    return {}


def _read_json(file: Path, name: str) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: expected the parameters of {name} as JSON, found: {error}") from error
    params = document.get("params") if isinstance(document, dict) else None
    if not isinstance(params, dict) or document.get("strategy_name") != name:
        raise ConfigurationError(f'{file}: expected {{"strategy_name": "{name}", "params": {{...}}}}')
    wrong = [key for key, value in params.items() if not isinstance(value, dict)]
    if wrong:
        raise ConfigurationError(f"{file}: expected tables in params, found none in {', '.join(wrong)}")
    return params
