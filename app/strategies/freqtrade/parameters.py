"""Hyper-parameters as strategies declare them, and which value is in force. Knows nothing of how they are loaded.

`default` is what the declaration says; `value` is what the strategy reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.errors import ConfigurationError


class BaseParameter:
    """A class attribute whose value a definition, a JSON file or a class dict may override by its name.

    Args:
        default: the value when nothing overrides it.
        space: ``buy``, ``sell`` or another; by default told from the name (``buy_rsi``).
        optimize: accepted, without meaning: nothing is optimised here.
        load: whether JSON files and class dicts override it.
        options: accepted, without meaning.
    """

    def __init__(
        self, *, default: Any = None, space: str | None = None, optimize: bool = True, load: bool = True, **options: Any
    ) -> None:
        self.value = default
        self.space = space
        self.optimize = optimize
        self.load = load
        self.options = options
        self.name: str | None = None

    @property
    def range(self) -> Iterable[Any]:
        """The values to prepare indicators for: outside of an optimisation the one in force."""
        return [self.value]


class NumericParameter(BaseParameter):
    """A number between two bounds.

    Args:
        low: the lower bound, or both as a pair.
        high: the upper bound; None when `low` is a pair.
        default: as in BaseParameter.
        options: as in BaseParameter.

    Raises:
        ConfigurationError: the bounds are no pair.
    """

    def __init__(
        self, low: float | Sequence[float], high: float | None = None, *, default: float, **options: Any
    ) -> None:
        bounds = low if isinstance(low, Sequence) else (low, high)
        if len(bounds) != 2 or None in bounds or (isinstance(low, Sequence) and high is not None):
            raise ConfigurationError(f"{type(self).__name__}: expected low and high, found {low!r} and {high!r}")
        self.low: float
        self.high: float | None
        self.low, self.high = bounds
        super().__init__(default=default, **options)


class IntParameter(NumericParameter):
    """A whole number."""

    @property
    def range(self) -> Iterable[Any]:
        """The one value in force, as a range."""
        return range(self.value, self.value + 1)


class RealParameter(NumericParameter):
    """A number of any precision."""


class DecimalParameter(NumericParameter):
    """A number of so many decimals: whatever value it is given is rounded.

    Args:
        low: as in NumericParameter.
        high: as in NumericParameter.
        default: as in BaseParameter.
        decimals: digits after the point.
        options: as in BaseParameter.
    """

    def __init__(
        self,
        low: float | Sequence[float],
        high: float | None = None,
        *,
        default: float,
        decimals: int = 3,
        **options: Any,
    ) -> None:
        self.decimals = decimals
        super().__init__(low, high, default=default, **options)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, round(value, self.decimals) if name == "value" else value)


class CategoricalParameter(BaseParameter):
    """One of several values.

    Args:
        categories: what it may be; at least two.
        default: as in BaseParameter.
        options: as in BaseParameter.

    Raises:
        ConfigurationError: fewer than two categories.
    """

    def __init__(self, categories: Sequence[Any], *, default: Any = None, **options: Any) -> None:
        if len(categories) < 2:
            raise ConfigurationError(f"{type(self).__name__}: expected two categories or more, found {categories!r}")
        self.categories = categories
        super().__init__(default=default, **options)


class BooleanParameter(CategoricalParameter):
    """True or False."""

    def __init__(self, *, default: bool | None = None, **options: Any) -> None:
        super().__init__([True, False], default=default, **options)


def space_of(name: str, parameter: BaseParameter) -> str:
    """Return the space of a parameter: the declared one, or the word before the first underscore of its name.

    Raises:
        ConfigurationError: it has none.
    """
    space = parameter.space or name.partition("_")[0]
    if parameter.space is None and space not in ("buy", "sell", "enter", "exit", "protection"):
        raise ConfigurationError(f"parameter {name!r}: expected space='buy' or space='sell', or a name such as buy_x")
    return space
