"""Fingerprints: what a strategy computes with, as one text. Equal fingerprints, equal code, params and libraries.

Covers the source of the strategy's module and of every module it imports (also inside functions) that is user code:
under the same allow-listed prefix or in the same package. What is imported by a computed name, and files of data, are
not seen.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib import invalidate_caches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from app.strategies import bars, compiled, evaluation, formulas, higher, indicators, sdk
from app.strategies.sdk import Strategy

#: Characters of each half: 128 bits, no accident makes two equal.
_LENGTH = 32

#: Strategies of ours that are more than one module; the built-ins are one each.
_PACKAGES = ("app.strategies.composite",)

#: Libraries that compute; another version of one may give other numbers.
_LIBRARIES = ("numpy", "TA-Lib")

#: Our own modules that a signal passes through. Their text counts, not a number that somebody must remember to raise.
_SDK = (sdk, bars, indicators, formulas, compiled, higher, evaluation)


class Fingerprint(NamedTuple):
    """The two halves of a fingerprint."""

    code: str
    """Of the user's code and params."""
    platform: str
    """Of the SDK and the libraries."""

    def __str__(self) -> str:
        return f"{self.code}.{self.platform}"

    @classmethod
    def read(cls, text: str) -> Fingerprint:
        """Read a fingerprint from its text."""
        code, _, platform = text.partition(".")
        return cls(code, platform)


def take_fingerprint(strategy: Strategy, prefixes: Sequence[str]) -> Fingerprint:
    """Take the fingerprint of a strategy: its code as it lies on disk now, its params, what it computes with.

    Args:
        strategy: validated; its params are complete.
        prefixes: allow-listed module prefixes.
    """
    params = json.dumps(strategy.params.model_dump(mode="json"), sort_keys=True)
    code = [text for each in (strategy, *strategy.parts) for text in _code(type(each), prefixes)]
    return Fingerprint(_digest([*code, params]), _platform())


def find_modules(strategy: Strategy, prefixes: Sequence[str]) -> list[str]:
    """Find the modules of user code that a strategy and its parts are made of, by name."""
    found = [find_sources(type(each).__module__, prefixes) for each in (strategy, *strategy.parts)]
    return sorted({name for sources in found for name in sources})


def _code(cls: type[Strategy], prefixes: Sequence[str]) -> tuple[str, str]:
    return digest_sources(cls.__module__, prefixes), cls.__qualname__


def digest_sources(module: str, prefixes: Sequence[str]) -> str:
    """Return the digest of a module and all user code that it imports, as it lies on disk now."""
    found = find_sources(module, prefixes)
    return _digest([part for name in sorted(found) for part in (name, _text(found[name]))])


def find_sources(module: str, prefixes: Sequence[str]) -> dict[str, Path]:
    """Find the files of a module and of the user code it imports, by module name."""
    roots = _roots(module, prefixes)
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = None if name in found or not _is_under(name, roots) else _file(name)
        if path is not None:
            found[name] = path
            waiting += _packages(name)
            waiting += _imports(path.read_bytes(), name, path.name == "__init__.py")
    return found


def forget_modules(module: str, prefixes: Sequence[str]) -> None:
    """Have a module and the user code it imports read from disk at the next import."""
    for name in find_sources(module, prefixes):
        sys.modules.pop(name, None)
    invalidate_caches()


def _roots(module: str, prefixes: Sequence[str]) -> tuple[str, ...]:
    if _is_under(module, prefixes):
        return tuple(prefixes)
    if _is_under(module, _PACKAGES):
        return _PACKAGES
    # an installed package, or one of ours: the other built-ins and the SDK are no code of this strategy's
    return (module,) if module.startswith("app.") else (module.partition(".")[0],)


def _is_under(name: str, roots: Sequence[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def _file(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except Exception:  # a name that is no module; or importing its package, which runs user code, failed
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _packages(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


@lru_cache(maxsize=1024)
def _imports(source: bytes, name: str, is_package: bool) -> tuple[str, ...]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # compiled, or broken: importing it will say so
        return ()
    package = name if is_package else name.rpartition(".")[0]
    return tuple(found for node in ast.walk(tree) for found in _named(node, package))


def _named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)  # any of them may be a module


@cache
def _platform() -> str:
    own = [Path(str(module.__file__)).read_text("utf-8") for module in _SDK]
    return _digest([*own, *(version(name) for name in _LIBRARIES)])


def _text(path: Path) -> str:
    return path.read_bytes().replace(b"\r\n", b"\n").hex()


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:_LENGTH]
