"""Run specifications as people write them: a TOML file, flags of the command line, or both; flags win."""

from __future__ import annotations

import reprlib
import tomllib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.domain.candles import Timeframe
from app.domain.runs import RunLimits, RunSpec, TradingOverrides
from app.domain.selection import SelectionRules
from app.errors import ConfigurationError, SpecificationError, did_you_mean

#: Longest text of a value that an error shows.
SHOWN = 80

#: What the tables of a specification are checked by.
_TABLES: dict[tuple[Any, ...], Any] = {
    (): RunSpec,
    ("limits",): RunLimits,
    ("trading",): TradingOverrides,
    ("selection",): SelectionRules,
}

#: What pydantic says of a pattern of symbols is a regular expression.
_NO_PATTERN = "expected letters, digits and . _ : / - with * and ? for what may be anything"

#: What stands for the keys that every specification needs, while what is wrong between the others is looked for.
_SOME = {"strategies": ["some"], "timeframe": Timeframe.H1}

Place = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A specification as it was written, and what is wrong with it as far as it alone can tell."""

    spec: RunSpec | None
    """All of it; where something is wrong what is left without that, None when that is too little to be planned."""
    problems: tuple[str, ...] = ()
    """Each begins with the keys it is about and a colon."""
    source: str = "specification"


def read_draft(path: Path | None, flags: Mapping[str, Any], assignments: Sequence[str] = ()) -> Draft:
    """Read a specification, right or wrong.

    Args:
        path: a TOML file; None when everything comes from the command line.
        flags: by the specification's own keys, tables nested; those that were not given are absent.
        assignments: ``trading.fee_percent=0.2``, each with a value as TOML has it; they win over the file, flags over
            them.

    Raises:
        ConfigurationError: the file cannot be read, or an assignment is none.
    """
    document = _parse(path) if path else {}
    for each in assignments:
        _assign(document, each)
    return build_draft({**document, **flags}, str(path) if path else "specification")


def build_draft(document: object, source: str = "specification") -> Draft:
    """Check a specification on its own: every field, then what is wrong between them.

    Args:
        document: by the specification's own keys.
        source: a file, or what else it came from.
    """
    unstorable = list(_find_unstorable(document))
    problems = [f"{_join(place)}: expected text without NUL and half characters" for place in unstorable]
    errors: list[Any] = []
    try:
        spec: RunSpec | None = RunSpec.model_validate(document)
    except ValidationError as error:
        spec, errors = None, [item for item in error.errors(include_url=False) if not _is_in(item["loc"], unstorable)]
    places = [*unstorable, *(_place(item, document) for item in errors)]
    wrong = {str(place[0]) for place in places if len(place) == 1}
    rest = spec
    if places and isinstance(document, Mapping):
        right = _without(document, places)
        rest = _salvage({**_SOME, **right})
        spec = rest if right.keys() >= _SOME.keys() else None
    between = () if rest is None else rest.contradictions
    told = [each.text for each in between if not wrong.intersection(each.keys)]
    return Draft(spec, (*problems, *explained(errors, document), *told), source)


def parse_spec(document: Mapping[str, Any], *, source: str = "specification") -> RunSpec:
    """Validate a specification.

    Raises:
        SpecificationError: names every field that is wrong, what was found and what is allowed.
    """
    draft = build_draft(document, source)
    if draft.problems or draft.spec is None:
        raise SpecificationError(draft.source, draft.problems)
    return draft.spec


def explained(errors: Iterable[Any], document: object = None) -> list[str]:
    """Say what is wrong, a line each, as `SpecificationError` takes them.

    Args:
        errors: as pydantic lists them, with places relative to the document.
        document: that is wrong; None when it is not known.
    """
    found = [(_place(item, document), item) for item in errors]
    # what holds a wrong thing is not wrong itself: without it, a list counts as too short
    holders = {place[:size] for place, _ in found for size in range(1, len(place))}
    return list(dict.fromkeys(_explained(place, item) for place, item in found if place not in holders))


def _without(document: Mapping[str, Any], places: Iterable[Place]) -> dict[str, Any]:
    """Return a document without what is wrong: a key, or an item of a list or a table under one; not the others."""
    wrong = {place[:2] for place in places}
    right = {key: value for key, value in document.items() if (key,) not in wrong}
    for key in {place[0] for place in wrong if len(place) == 2} & right.keys():
        value = right.pop(key)
        if isinstance(value, Mapping):
            kept: Any = {name: inner for name, inner in value.items() if (key, name) not in wrong}
        else:
            kept = [inner for number, inner in enumerate(value) if (key, number) not in wrong]
        if kept:
            right[key] = kept
    return right


def _salvage(rest: Mapping[str, Any]) -> RunSpec | None:
    try:
        return RunSpec.model_validate(rest)
    except ValidationError:
        return None


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: expected a readable file, found: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: expected TOML, found: {error}") from error


def _assign(document: dict[str, Any], assignment: str) -> None:
    key, sign, value = assignment.partition("=")
    *tables, leaf = key.strip().split(".")
    if not sign or not all((*tables, leaf)):
        raise ConfigurationError(f"--set: expected KEY=VALUE such as trading.fee_percent=0.2, found {assignment!r}")
    place = document
    for table in tables:
        inner = place.setdefault(table, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"--set {assignment}: {table} is no table, it is {str(inner)[:SHOWN]!r} already")
        place = inner
    place[leaf] = _read_value(value)


def _read_value(text: str) -> Any:
    """Read a value as TOML has it; what is none is text, so that nobody has to quote twice."""
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if len(read) == 1 else text


def _find_unstorable(document: object) -> Iterator[Place]:
    """Find text that Postgres cannot store: with a NUL, or half of a surrogate pair."""
    waiting: deque[tuple[Place, object]] = deque([((), document)])
    while waiting:
        place, value = waiting.popleft()
        if isinstance(value, Mapping):
            yield from ((*place, key) for key in value if _is_unstorable(key))
            waiting.extend(((*place, key), inner) for key, inner in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend(((*place, number), inner) for number, inner in enumerate(value))
        elif _is_unstorable(value):
            yield place


def _is_in(place: Place, others: Iterable[Place]) -> bool:
    return any(place[: len(other)] == other for other in others)


def _is_unstorable(value: object) -> bool:
    return isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value))


def _place(item: Any, document: object) -> Place:
    """Return where a problem is: pydantic also names the alternatives of a union, which are no keys."""
    loc: Place = item["loc"]
    if document is None or item["type"] == "missing":
        return loc
    place, value = list[Any](), document
    for part in loc:
        is_key = isinstance(value, Mapping) and part in value
        is_number = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if is_key or is_number:
            place.append(part)
            value = value[part]  # type: ignore[index] # it has it
    return tuple(place)


def _explained(place: Place, item: Any) -> str:
    path = _join(place)
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key: {did_you_mean(str(place[-1]), _keys(place[:-1]))}"
    if item["type"] == "missing":
        return f"{path}: this key is required"
    is_pattern = place[:1] == ("symbols",) and item["type"] == "string_pattern_mismatch"
    text = _NO_PATTERN if is_pattern else item["msg"].removeprefix("Value error, ")
    return f"{path}: {text}, found {_shown(item['input'])!r}" if path else text


def _shown(value: object) -> str:
    # of what is nested without end only the first levels can be written
    return (reprlib.repr(value) if isinstance(value, Mapping | list | tuple) else str(value))[:SHOWN]


def _join(place: Place) -> str:
    # an empty key, or one of which nothing would be seen, is written as a literal
    return ".".join(name if name.strip() and name.isprintable() else ascii(name) for name in map(str, place))


def _keys(place: Place) -> list[str]:
    refused = {"enabled"} if _TABLES[place] is TradingOverrides else set()
    return [field.alias or name for name, field in _TABLES[place].model_fields.items() if name not in refused]
