"""The environment, read once at an entry point; a variable that means nothing is refused."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from app.errors import ConfigurationError
from app.settings.group import DELIMITER, PREFIX, Group
from app.settings.whole import Settings


def load_settings() -> Settings:
    """Read and validate the settings; called at entry points only.

    Raises:
        ConfigurationError: a value is wrong, or a CANDLEFLEET_ variable means nothing.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        raise ConfigurationError(_explain(error)) from error


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: what it is called, what it means, what holds without it."""

    name: str
    default: str
    meaning: str
    path: tuple[str, ...]


def known_variables() -> Iterator[Variable]:
    """Yield every environment variable that means something."""
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, Group):
            for inner, inner_field in group.model_fields.items():
                yield _variable(inner_field, name, inner)
        else:
            yield _variable(field, name)


def _variable(field: FieldInfo, *path: str) -> Variable:
    default = field.get_default(call_default_factory=True)
    shown = "" if default is None else str(getattr(default, "value", default))
    meaning = " ".join((field.description or "").split())
    return Variable(PREFIX + DELIMITER.join(path).upper(), shown, meaning, path)


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {variable.name for variable in known_variables()}
    unknown = sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        hints = "; ".join(f"{name}: {_closest(name, known)}" for name in unknown)
        raise ConfigurationError(f"environment variables that mean nothing: {hints}")


def _closest(name: str, known: set[str]) -> str:
    # without the prefix, which every name shares
    words = {variable.removeprefix(PREFIX): variable for variable in known}
    close = difflib.get_close_matches(name.upper().removeprefix(PREFIX), words, n=1, cutoff=0.5)
    return f"did you mean {words[close[0]]}?" if close else "unset it, or see docs/settings.md"


def _explain(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return f"settings: {error}"
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        variable = PREFIX + DELIMITER.join(str(part) for part in item["loc"]).upper()
        lines.append(f"{variable if item['loc'] else 'settings'}: {item['msg']}")
    return "; ".join(lines)
