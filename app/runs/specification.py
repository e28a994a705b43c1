"""Run specifications as people write them: a TOML file, flags of the command line, or both; flags win."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.domain.runs import RunSpec
from app.errors import ConfigurationError, SpecificationError, did_you_mean

#: Longest text of a value that an error shows.
SHOWN = 80


def read_spec(path: Path | None, flags: Mapping[str, Any]) -> RunSpec:
    """Read a specification.

    Args:
        path: a TOML file; None when everything comes from flags.
        flags: by the specification's own keys, tables nested; those that were not given are absent.

    Raises:
        ConfigurationError: the file cannot be read, or what both say is wrong: names every field, what was found and
            what is allowed.
    """
    document = {**_parse(path), **flags} if path else dict(flags)
    return parse_spec(document, source=str(path) if path else "specification")


def parse_spec(document: Mapping[str, Any], *, source: str = "specification") -> RunSpec:
    """Validate a specification; else as `read_spec`."""
    try:
        return RunSpec.model_validate(document)
    except ValidationError as error:
        raise SpecificationError(source, explained(error.errors(include_url=False))) from error


def explained(errors: Iterable[Any]) -> list[str]:
    """Say what is wrong with a specification, a line each, as `SpecificationError` takes them.

    Args:
        errors: as pydantic lists them, with places relative to the specification.
    """
    return [_explained(item) for item in errors]


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: expected a readable file, found: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: expected TOML, found: {error}") from error


def _explained(item: Any) -> str:
    # pydantic names the alternatives of a union by their types: that is no key
    path = ".".join(str(part) for part in item["loc"] if "[" not in str(part))
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key: {did_you_mean(str(item['loc'][-1]), _keys(item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"{path}: this key is required"
    text = item["msg"].removeprefix("Value error, ")
    return f"{path}: {text}, found {str(item['input'])[:SHOWN]!r}" if path else text


def _keys(path: tuple[Any, ...]) -> list[str]:
    model: Any = RunSpec
    for part in path:
        model = model.model_fields[part].annotation
    return [field.alias or name for name, field in model.model_fields.items()]
