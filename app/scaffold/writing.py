"""Writing a new strategy from templates: which files, under which names, and what to do with them next."""

from __future__ import annotations

import json
import keyword
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

from app.errors import ConfigurationError
from app.strategies.registry import ENTRY_POINT_GROUP, Registry

#: Words joined by - or _: with - it names the strategy and its folder, with _ the Python package.
_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")

#: Longest name, characters: a strategy's may have 63, and people add to it.
LONGEST_NAME = 40


class Form(StrEnum):
    """What kind of strategy is written."""

    SIGNALS = "signals"
    """A class that answers for every candle at once."""
    ON_CANDLE = "on_candle"
    """A class that answers for the last candle."""
    COMPOSITE = "composite"
    """A definition alone."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    folder: Path
    files: tuple[Path, ...]
    """Relative to the folder."""
    commands: tuple[str, ...]
    """To run next, in a shell."""
    installed: str = ""
    """What names it in a definition once it is installed; empty for a composite."""


def write_strategy(name: str, form: Form, into: Path) -> Written:
    """Write a new strategy into a folder of its name.

    Args:
        name: such as ``dip-buyer``.
        form: of the strategy.
        into: an existing folder.

    Raises:
        ConfigurationError: the name cannot be used, `into` is no folder, or the new folder exists. Nothing was written.
    """
    _check_name(name, form)
    folder = into / name
    if not into.is_dir():
        raise ConfigurationError(f"expected an existing folder to write into, found none at {into}")
    if folder.exists():
        raise ConfigurationError(f"{folder} exists, nothing was written: choose another name, or another --into")
    words = _words(name)
    files = {Path(path): _filled(template, words) for path, template in _files(form, words)}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    installed = "" if form is Form.COMPOSITE else words["package"]
    return Written(folder, tuple(files), tuple(_commands(form, folder, words)), installed)


def _check_name(name: str, form: Form) -> None:
    expected = f"expected a name of lower-case words joined by - or _, {LONGEST_NAME} characters at most"
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ConfigurationError(f"{expected}, such as dip-buyer, found {name!r}")
    if form is Form.COMPOSITE:
        return
    package = name.replace("-", "_")
    if package in Registry().names:
        raise ConfigurationError(f"{package!r} is an implementation already, and would win: choose another name")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or find_spec(package) is not None:
        raise ConfigurationError(f"{package!r} means something in Python here already: choose another name")


def _words(name: str) -> dict[str, str]:
    parts = re.split("[_-]", name)
    return {
        "name": "-".join(parts),
        "package": "_".join(parts),
        "class_name": "".join(part.capitalize() for part in parts),
        "title": " ".join(parts).capitalize(),
        "group": ENTRY_POINT_GROUP,
    }


def _files(form: Form, words: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Return the path of each file, and its template."""
    name, package = words["name"], words["package"]
    if form is Form.COMPOSITE:
        yield f"{name}.toml", "composite_definition.toml"
        yield f"test_{package}.py", "composite_test.py"
        return
    yield "pyproject.toml", "pyproject.toml"
    yield f"{name}.toml", "definition.toml"
    yield f"{package}/__init__.py", "package.py"
    yield f"{package}/strategy.py", f"{form}.py"
    yield f"tests/test_{package}.py", "test.py"


def _filled(template: str, words: dict[str, str]) -> str:
    text = resources.files("app.scaffold").joinpath("templates", f"{template}.txt").read_text("utf-8")
    return Template(text).substitute(words)


def _commands(form: Form, folder: Path, words: dict[str, str]) -> Iterator[str]:
    yield f"cd {shlex.quote(str(folder))}"
    yield "python -m pytest"
    if form is not Form.COMPOSITE:
        modules = shlex.quote(json.dumps([words["package"]]))
        yield f'export PYTHONPATH="$PWD" CANDLEFLEET_STRATEGIES__MODULES={modules}   # workers need both as well'
    yield f"candlefleet strategies verify {words['name']}.toml"
    yield f"candlefleet strategies add {words['name']}.toml"
