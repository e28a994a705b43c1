"""What a stress test does: how many markets, which strategies, on how many slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.domain.candles import Timeframe
from app.domain.strategies import StrategyDefinition
from app.errors import CandlefleetError, ConfigurationError, did_you_mean
from app.runs.memory import candles_remembered
from app.strategies.registry import Registry


class Size(StrEnum):
    """How large a stress test is."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"
    HUGE = "huge"

    @property
    def markets(self) -> int:
        """How many markets it has."""
        return {Size.SMALL: 100, Size.MEDIUM: 500, Size.LARGE: 1000, Size.HUGE: 10_000}[self]


#: What markets are asked about: one strategy unless told, because a rate of markets says what a market costs; one that
#: looks at twenty candles, so that more than reading candles is measured.
USUAL_STRATEGY = "bollinger-reversion"

#: Names all built-in strategies.
ALL = "all"


class StressError(CandlefleetError):
    """A stress test could not be carried to its end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stress test does."""

    size: Size
    data: Path | None = None
    """Candle files; None generates candles."""
    strategies: tuple[str, ...] = (USUAL_STRATEGY,)
    """Names of built-in ones, or `all`."""
    workers: int = 1
    slots: int = 2
    """Of each worker node."""
    rounds: int = 5
    """Runs that are measured; the one of median length is reported."""


def choose_strategies(known: Sequence[StrategyDefinition], names: Sequence[str]) -> list[StrategyDefinition]:
    """Return the strategies of these names, each once, all of them where `all` is among the names.

    Raises:
        ConfigurationError: a name that is not known.
    """
    by_name = {each.name: each for each in known}
    if ALL in names:
        return list(known)
    for name in names:
        if name not in by_name:
            raise ConfigurationError(
                f"--strategies: no built-in strategy {name!r}: {did_you_mean(name, [*by_name, ALL])}"
            )
    return [by_name[name] for name in dict.fromkeys(names)]


def candles_needed(
    definitions: Sequence[StrategyDefinition], registry: Registry, window: int, timeframe: Timeframe
) -> int:
    """Return how many candles of a market these strategies read.

    Args:
        definitions: of the strategies.
        registry: what may be loaded.
        window: candles of a worker's window.
        timeframe: of the candles.
    """
    built = (registry.create(each.implementation, each.params, name=each.name) for each in definitions)
    return max(candles_remembered(strategy, window, timeframe) for strategy in built)
