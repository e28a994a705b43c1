"""Floors: what each ratio must not fall below, or rise above, kept in the repository beside the target."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigurationError

FLOORS = Path(__file__).resolve().parents[2] / "benchmarks" / "floors.toml"


@dataclass(frozen=True, slots=True)
class Floor:
    """A bound of one ratio."""

    name: str
    bound: float
    """Worse than this is a failure. It leaves room for a noisy machine."""
    target: float
    """What the project promises on a quiet machine."""
    is_least: bool
    """Whether the ratio should be large: the bound is the least it may be, else the most."""

    def is_met(self, value: float) -> bool:
        """Tell whether a value is on the right side of the bound."""
        return value >= self.bound if self.is_least else value <= self.bound

    def reaches_target(self, value: float) -> bool:
        """Tell whether a value is on the right side of the target."""
        return value >= self.target if self.is_least else value <= self.target

    def describe(self) -> str:
        """Return ``at least 12``."""
        return f"at {'least' if self.is_least else 'most'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ratio held against its floor."""

    floor: Floor
    value: float

    @property
    def passed(self) -> bool:
        """Whether the floor is met."""
        return self.floor.is_met(self.value)

    def document(self) -> dict[str, Any]:
        """Build its part of the JSON document."""
        return {
            "ratio": self.floor.name,
            "value": round(self.value, 4),
            "at_least" if self.floor.is_least else "at_most": self.floor.bound,
            "target": self.floor.target,
            "passed": self.passed,
            "reaches_target": self.floor.reaches_target(self.value),
        }


def load_floors(path: Path = FLOORS) -> dict[str, Floor]:
    """Load the floors.

    Raises:
        ConfigurationError: the file is missing or says something else than one bound and one target for each ratio.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"floors of the benchmark cannot be read: {error}") from error
    return {name: _build(name, table) for name, table in tables.items()}


def judge(ratios: Mapping[str, float], floors: Mapping[str, Floor]) -> list[Verdict]:
    """Hold every ratio that has a floor against it."""
    return [Verdict(floors[name], value) for name, value in ratios.items() if name in floors]


def _build(name: str, table: object) -> Floor:
    if isinstance(table, dict) and sorted(table) in (["at_least", "target"], ["at_most", "target"]):
        is_least = "at_least" in table
        bound = table["at_least" if is_least else "at_most"]
        if isinstance(bound, int | float) and isinstance(table["target"], int | float):
            return Floor(name, float(bound), float(table["target"]), is_least)
    raise ConfigurationError(f"floor {name}: expected at_least or at_most, and target, as numbers; found {table!r}")
