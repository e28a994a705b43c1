"""Strategy definition files: TOML or YAML, a base section that each strategy's section is merged over.

Owns the merge, where each value came from, and the report of everything wrong with a file. It must not know where
definitions are stored or who runs them.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.domain.candles import Timeframe
from app.domain.strategies import StrategyDefinition, Subscription
from app.errors import ConfigurationError, did_you_mean
from app.strategies.registry import Problem, Registry, build, explain
from app.strategies.sdk import Strategy

#: Keys of a strategy's section: the definition's own, with the subscription's two at the top and the name outside.
SECTION_KEYS = frozenset({*Subscription.model_fields, *StrategyDefinition.model_fields} - {"name", "subscription"})

#: Candles in a worker's window unless its settings say otherwise; a strategy that needs more could never answer.
DEFAULT_WINDOW = 512

_YAML_SUFFIXES = (".yaml", ".yml")
_YAML_HINT = " (YAML 1.1 reads a bare on, off, yes or no as true or false: quote it)"

#: Marks a value that was reported and is left out.
_REFUSED = object()

Section = dict[str, Any]
KeyPath = tuple[str, ...]


class Provenance(StrEnum):
    """Where a value of a definition came from."""

    BASE = "base"
    STRATEGY = "strategy"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class LoadedDefinition:
    """A validated definition and where each of its values came from."""

    definition: StrategyDefinition
    """Its params are complete: what the file left out is filled in from the implementation's defaults."""
    provenance: Mapping[str, Provenance]
    """By dotted key as written in a file, such as ``limits.timeout_ms`` or ``params.fast``."""


def load_definitions(path: Path, registry: Registry, window: int = DEFAULT_WINDOW) -> tuple[LoadedDefinition, ...]:
    """Load every strategy of a definition file, in the file's order: all of them or none.

    Args:
        path: a .toml, .yaml or .yml file, UTF-8.
        registry: what may be loaded.
        window: candles a worker's window holds; a strategy whose warm-up is longer is refused.

    Raises:
        ConfigurationError: the file cannot be read or parsed (with the line), or something in it is wrong: names
            every strategy and key, what was found and what is allowed.
    """
    is_yaml = path.suffix.lower() in _YAML_SUFFIXES
    reader = _Reader(registry, window, hint=_YAML_HINT if is_yaml else "")
    try:
        loaded = reader.read(_parse(path))
    except RecursionError as error:
        raise ConfigurationError(f"{path}: expected a few levels of tables, found endless nesting") from error
    if reader.problems:
        listed = "".join(f"\n  - {problem}" for problem in dict.fromkeys(reader.problems))
        raise ConfigurationError(f"{path}: nothing was loaded, because of{listed}")
    return loaded


class _Reader:
    """Reads one document and gathers everything that is wrong with it."""

    def __init__(self, registry: Registry, window: int, hint: str) -> None:
        self.problems: list[Problem] = []
        self._registry = registry
        self._window = window
        self._hint = hint

    def read(self, document: object) -> tuple[LoadedDefinition, ...]:
        whole = self._table(document, (), {"base", "strategies"})
        base = self._table(whole.get("base", {}), ("base",), SECTION_KEYS)
        sections = self._table(whole.get("strategies", {}), ("strategies",))
        if not sections and not self.problems:
            self._report((), "expected at least one section strategies.NAME, found none")
        loaded = [self._definition(name, base, section) for name, section in sections.items()]
        return tuple(item for item in loaded if item is not None)

    def _definition(self, name: str, base: Section, raw: object) -> LoadedDefinition | None:
        where = ("strategies", name)
        if not isinstance(raw, dict):
            self._report(where, f"expected a table, found {_shown(raw)}")
            return None
        section = self._table(raw, where, SECTION_KEYS)
        merged, origin = _merge(base, section), _origin(base, section)
        strategy, problems = self._strategy(name, merged)
        definition, more = _validate(name, merged)
        for path, text in problems + more:
            self._report(_located(path, where, origin), self._hinted(text))
        return None if strategy is None or definition is None else _loaded(definition, strategy, origin)

    def _strategy(self, name: str, merged: Section) -> tuple[Strategy | None, list[Problem]]:
        implementation, params = merged.get("implementation"), merged.get("params", {})
        if not isinstance(implementation, str) or not isinstance(params, dict):
            return None, []  # the definition's own validation says so
        try:
            strategy, problems = build(self._registry.resolve(implementation), params, name)
        except ConfigurationError as error:
            return None, [Problem(("implementation",), str(error))]
        if strategy is not None:
            problems = _unanswerable(strategy, merged.get("timeframes", ["*"]), self._window)
        return strategy, problems

    def _table(self, value: object, path: KeyPath, allowed: Collection[str] | None = None) -> Section:
        """Return the usable part of a table: known keys with plain values. Everything else is reported."""
        if not isinstance(value, dict):
            self._report(path, f"expected a table, found {_shown(value)}")
            return {}
        known = {key: item for key, item in value.items() if self._is_known(key, path, allowed)}
        if path in ((), ("strategies",)):
            return known  # looked into section by section
        plain = {key: self._plain(item, (*path, key)) for key, item in known.items()}
        return {key: item for key, item in plain.items() if item is not _REFUSED}

    def _is_known(self, key: object, path: KeyPath, allowed: Collection[str] | None) -> bool:
        if not isinstance(key, str):
            self._report(path, f"expected keys to be text, found {key!r}{self._hint}")
        elif allowed is not None and key not in allowed:
            self._report((*path, key), f"unknown key: {did_you_mean(key, allowed)}")
        else:
            return True
        return False

    def _plain(self, value: object, path: KeyPath) -> object:
        """Return a value as JSON has it: TOML and YAML also know dates, NaN and keys that are no text."""
        if isinstance(value, dict):
            return self._table(value, path)
        if isinstance(value, list):
            return [item for item in [self._plain(item, path) for item in value] if item is not _REFUSED]
        if isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value)):
            return value
        self._report(path, f"expected text, a finite number, true, false, a list or a table, found {_shown(value)}")
        return _REFUSED

    def _hinted(self, text: str) -> str:
        return text + self._hint if re.search(r"found (True|False)\b", text) else text

    def _report(self, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(path, text))


def _validate(name: str, merged: Section) -> tuple[StrategyDefinition | None, list[Problem]]:
    subscription = {key: merged[key] for key in Subscription.model_fields if key in merged}
    rest = {key: value for key, value in merged.items() if key not in subscription}
    document = json.dumps({"name": name, "subscription": subscription, **rest})
    try:
        return StrategyDefinition.model_validate_json(document, strict=True), []
    except ValidationError as error:
        problems = explain(error, StrategyDefinition)
        return None, [_as_written(problem, merged) for problem in problems if not _is_echo(problem, problems)]


def _is_echo(problem: Problem, problems: list[Problem]) -> bool:
    """Tell whether a list is only wrong because of its items: without them it counts as too short."""
    depth = len(problem.path)
    return any(len(other.path) > depth and other.path[:depth] == problem.path for other in problems)


def _as_written(problem: Problem, merged: Section) -> Problem:
    """Bring a problem of the definition back to the keys that the file has."""
    path = problem.path[1:] if problem.path[0] == "subscription" else problem.path
    if path[0] == "name":
        return Problem((), f"not a strategy name: {problem.text}")
    if path[0] == "timeframes" and len(path) > 1:
        return Problem(path[:1], _wrong_timeframe(merged["timeframes"][int(path[1])]))
    return Problem(path, problem.text)


def _wrong_timeframe(found: object) -> str:
    allowed = ["*", *(frame.value for frame in Timeframe)]
    return f"unknown timeframe {found!r}: {did_you_mean(str(found).lower(), allowed)}"


def _unanswerable(strategy: Strategy, wanted: object, window: int) -> list[Problem]:
    """Say on which of the subscribed timeframes a strategy could never answer."""
    frames = _known_timeframes(wanted) if isinstance(wanted, list) else []
    unfit = [frame for frame in frames if frame not in strategy.warmups]
    if unfit:
        fit = ", ".join(strategy.warmups)
        return [Problem(("timeframes",), f"its higher timeframes allow {fit}; found {', '.join(unfit)}")]
    frame = max(frames, key=strategy.warmups.__getitem__, default=None)
    if frame is None or strategy.warmups[frame] <= window:
        return []
    where = "" if len(set(strategy.warmups.values())) == 1 else f" on {frame}"
    return [Problem(("params",), _too_long(strategy.warmups[frame], window, where))]


def _known_timeframes(wanted: list[object]) -> list[Timeframe]:
    if "*" in wanted:
        return list(Timeframe)
    return [frame for frame in Timeframe if frame.value in wanted]  # what is unknown is reported elsewhere


def _too_long(warmup: int, window: int, where: str) -> str:
    return (
        f"need {warmup} candles of warm-up{where}, found a window of {window}: shorten the periods or widen the window"
    )


def _merge(base: Section, over: Section) -> Section:
    """Merge deeply: tables merge, everything else is replaced."""
    merged = {**base, **over}
    shared = [key for key in base.keys() & over.keys() if isinstance(base[key], dict) and isinstance(over[key], dict)]
    return {**merged, **{key: _merge(base[key], over[key]) for key in shared}}


def _leaves(section: Section, path: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def _origin(base: Section, section: Section) -> dict[KeyPath, Provenance]:
    from_base = dict.fromkeys(_leaves(base), Provenance.BASE)
    return from_base | dict.fromkeys(_leaves(section), Provenance.STRATEGY)


def _located(path: KeyPath, where: KeyPath, origin: Mapping[KeyPath, Provenance]) -> KeyPath:
    """Put the section in front of a key: a value out of the base section is wrong there, once."""
    prefixes = [path[:length] for length in range(len(path), 0, -1)]
    source = next((origin[prefix] for prefix in prefixes if prefix in origin), Provenance.STRATEGY)
    if source is not Provenance.BASE:
        return (*where, *path)
    owner = (
        f"base (as {'.'.join(where)})" if path[0] == "params" else "base"
    )  # whether params fit is up to the strategy
    return (owner, *path)


def _loaded(
    definition: StrategyDefinition, strategy: Strategy, origin: Mapping[KeyPath, Provenance]
) -> LoadedDefinition:
    complete = definition.model_copy(update={"params": strategy.params.model_dump(mode="json")})
    values = complete.model_dump(mode="json", exclude={"name"})
    leaves = _leaves({**values.pop("subscription"), **values})
    return LoadedDefinition(complete, {".".join(leaf): origin.get(leaf, Provenance.DEFAULT) for leaf in leaves})


def _parse(path: Path) -> object:
    suffix = path.suffix.lower()
    if suffix not in (".toml", *_YAML_SUFFIXES):
        raise ConfigurationError(
            f"{path}: expected a file ending in .toml, .yaml or .yml, found {suffix or 'no ending'!r}"
        )
    text = _read(path)
    if not text.strip():
        raise ConfigurationError(f"{path}: expected strategy sections, found an empty file")
    return _parse_yaml(path, text) if suffix in _YAML_SUFFIXES else _parse_toml(path, text)


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: expected a readable file, found: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: expected UTF-8 text, found {error.reason}") from error


def _parse_toml(path: Path, text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error).replace("at end of document", f"at line {text.count(chr(10)) + 1}, the end")
        raise ConfigurationError(f"{path}: expected TOML, found: {message}") from error


def _parse_yaml(path: Path, text: str) -> object:
    try:
        return _UniqueKeyLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path}{line}: expected YAML, found: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: expected YAML, found: {error}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML's own would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _value in node.value:
            mark = (key.tag, str(key.value))
            if mark in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} twice", key.start_mark)
            seen.add(mark)
        return super().construct_mapping(node, deep)


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.80}"
