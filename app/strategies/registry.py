"""What may be loaded as a strategy, by implementation name. Nothing else can be imported by name.

Three sources: the built-ins and `composite` by short name, installed packages by entry point, and modules under an
allow-listed prefix as ``package.module:Class``. With ``freqtrade:`` in front the latter two name a strategy of
freqtrade's interface. Params are validated here, in the language of whoever wrote the definition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.errors import ConfigurationError, ParamsError, did_you_mean
from app.strategies.builtin import BUILTINS
from app.strategies.composite.strategy import COMPOSITE, composite_of
from app.strategies.fingerprint import digest_sources, forget_modules
from app.strategies.sdk import Strategy

#: Entry point group of strategies in installed packages.
ENTRY_POINT_GROUP = "candlefleet.strategies"

#: Entry point group of freqtrade strategies in installed packages.
FREQTRADE_ENTRY_POINT_GROUP = "candlefleet.freqtrade"

#: What an implementation name starts with when it names a strategy of freqtrade's interface.
FREQTRADE_PREFIX = "freqtrade:"

_REFERENCE = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<cls>[A-Za-z_]\w*)", re.ASCII)

#: Digests of the user code that this process has imported, as it was then, by module; modules are shared like this too.
_IMPORTED: dict[str, str] = {}


class Problem(NamedTuple):
    """One thing wrong with a document: where in it, and what."""

    path: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {self.text}" if self.path else self.text


class Registry:
    """Finds strategy classes and creates strategies.

    Args:
        allowed_modules: module prefixes of user strategies: ``quants`` allows ``quants`` and ``quants.trend``.
    """

    def __init__(self, allowed_modules: tuple[str, ...] = ()) -> None:
        self.allowed_modules = allowed_modules

    @cached_property
    def _installed(self) -> Mapping[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}

    @property
    def names(self) -> tuple[str, ...]:
        """The short names that can be loaded: built-ins, `composite` and entry points, sorted."""
        return tuple(sorted({*BUILTINS, COMPOSITE, *self._installed}))

    @cached_property
    def _composite(self) -> type[Strategy]:
        return composite_of(self._create_part)

    def resolve(self, implementation: str) -> type[Strategy]:
        """Return the class of an implementation name; a built-in wins over an entry point of the same name.

        Raises:
            ConfigurationError: unknown, not allowed, not importable, or not a Strategy.
        """
        if implementation in BUILTINS:
            return BUILTINS[implementation]
        if implementation == COMPOSITE:
            return self._composite
        if implementation in self._installed:
            return _load(implementation, self._installed[implementation].load)
        if implementation.startswith(FREQTRADE_PREFIX):
            module, name = self._find_freqtrade(implementation.removeprefix(FREQTRADE_PREFIX))
            return _load(implementation, lambda: import_freqtrade("native").load(module, name))
        module, name = self._find_module(implementation)
        return _load(implementation, lambda: self._import(module, name))

    def create(self, implementation: str, params: Mapping[str, Any] | None = None, *, name: str = "") -> Strategy:
        """Create a strategy with validated params.

        Args:
            implementation: short name or ``package.module:Class``.
            params: plain JSON values; missing keys take the strategy's defaults.
            name: how errors call the strategy; the implementation when empty.

        Raises:
            ConfigurationError: as `resolve`, or params that are not accepted (all of them named).
        """
        label = name or implementation
        strategy, problems = build(self._resolve_for(name, implementation), params or {}, label)
        if strategy is None:
            listed = "; ".join(str(problem) for problem in problems)
            raise ConfigurationError(f"strategy {label!r} ({implementation}): {listed}")
        return strategy

    def _resolve_for(self, name: str, implementation: str) -> type[Strategy]:
        try:
            return self.resolve(implementation)
        except ConfigurationError as error:
            raise ConfigurationError(f"strategy {name!r}: {error}" if name else str(error)) from error

    def _create_part(self, implementation: str, params: Mapping[str, Any], name: str) -> Strategy:
        strategy, problems = build(self.resolve(implementation), params, name)
        if strategy is None:
            raise ParamsError(problems)
        return strategy

    def _find_freqtrade(self, reference: str) -> tuple[str, str]:
        installed = {point.name: point for point in entry_points(group=FREQTRADE_ENTRY_POINT_GROUP)}
        point = installed.get(reference)
        return self._find_module(reference) if point is None else (point.module, point.attr)

    def _find_module(self, implementation: str) -> tuple[str, str]:
        """Return the module and the class that a reference names, if the module may be imported."""
        reference = _REFERENCE.fullmatch(implementation)
        if reference is None:
            hint = did_you_mean(implementation, self.names)
            raise ConfigurationError(f"unknown implementation {implementation!r}: {hint}, or package.module:Class")
        module = reference["module"]
        if not any(module == prefix or module.startswith(f"{prefix}.") for prefix in self.allowed_modules):
            allowed = ", ".join(self.allowed_modules) or "none"
            found = f"implementation {implementation!r}: module {module!r} is not under an allowed prefix"
            raise ConfigurationError(f"{found}; allowed: {allowed}")
        return module, reference["cls"]

    def _import(self, module: str, cls: str) -> object:
        """Import a class; a module whose files have changed since this process imported it is imported anew."""
        digest = digest_sources(module, self.allowed_modules)
        if _IMPORTED.get(module, digest) != digest:
            forget_modules(module, self.allowed_modules)
        _IMPORTED[module] = digest
        return getattr(import_module(module), cls)


def build(cls: type[Strategy], params: Mapping[str, Any], name: str) -> tuple[Strategy | None, list[Problem]]:
    """Create a strategy, or say everything that is wrong with its params.

    Returns:
        The strategy and no problems, or None and the problems, their paths starting with ``params``.
    """
    try:
        return cls(cls.Params.model_validate_json(json.dumps(dict(params), allow_nan=False)), name=name), []
    except ValidationError as error:
        return None, [Problem(("params", *path), text) for path, text in explain(error, cls.Params)]
    except ParamsError as error:
        return None, [Problem(("params", *path), text) for path, text in error.problems]
    except Exception as error:  # user code in indicators(), or params that are not JSON
        return None, [Problem(("params",), f"cannot be used: {type(error).__name__}: {error}")]


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Say what is wrong with each key: what was found and what is allowed."""
    return [_explained(item, model) for item in error.errors(include_url=False)]


def _explained(item: ErrorDetails, model: type[BaseModel]) -> Problem:
    path = tuple(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return Problem(path, f"unknown key: {did_you_mean(path[-1], _keys(model, path[:-1]))}")
    if item["type"] == "missing":
        return Problem(path, "this key is required")
    text = item["msg"].removeprefix("Value error, ")
    if not path:
        return Problem(path, text)
    allowed = _allowed(model, path)
    return Problem(path, f"{text}, found {item['input']!r:.80}{allowed and f'; allowed: {allowed}'}")


def _keys(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    return list(_schema(model, path).get("properties", {}))


def _allowed(model: type[BaseModel], path: tuple[str, ...]) -> str:
    schema = _schema(model, path)
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {schema[key]}" for key, word in bounds.items() if key in schema]
    return ", ".join([str(schema["type"]), *limits]) if "type" in schema else ""


def _schema(model: type[BaseModel], path: tuple[str, ...]) -> dict[str, Any]:
    """Follow a path through a model's JSON schema; empty where the path leaves it."""
    root = model.model_json_schema()
    schema: dict[str, Any] = root
    for step in path:
        named: dict[str, Any] = next(
            iter(schema.get("patternProperties", {}).values()), {}
        )  # a table whose keys are names
        schema = _dereferenced(root, schema.get("properties", {}).get(step, named))
    return schema


def _dereferenced(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    # what may be null as well is described by its other form
    schema = next((form for form in schema.get("anyOf", ()) if form.get("type") != "null"), schema)
    reference = schema.get("$ref", "")
    return root["$defs"][reference.rpartition("/")[2]] if reference else schema


def import_freqtrade(part: str) -> Any:
    """Import a module of what runs freqtrade strategies; only now, because pandas comes with it.

    Raises:
        ConfigurationError: pandas is not installed.
    """
    try:
        return import_module(f"app.strategies.freqtrade.{part}")
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise ConfigurationError("freqtrade strategies need pandas: install candlefleet[freqtrade]") from error


def _load(implementation: str, load: Callable[[], object]) -> type[Strategy]:
    try:
        found = load()
    except ConfigurationError as error:
        raise ConfigurationError(f"implementation {implementation!r}: {error}") from error
    except (Exception, SystemExit) as error:  # importing runs user code
        raise ConfigurationError(
            f"implementation {implementation!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Strategy) and found is not Strategy):
        raise ConfigurationError(f"implementation {implementation!r}: expected a subclass of Strategy, found {found!r}")
    return found
