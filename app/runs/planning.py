"""Planning: a specification, the strategies it names and the series that are stored become units, or refusals.

Pure, and everything that can be wrong is said before anything is queued, all of it at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice, product
from math import prod
from typing import Any, NamedTuple

from pydantic import ValidationError

from app.domain.base import explain
from app.domain.candles import Timeframe
from app.domain.runs import Evaluation, Method, RunKind, RunSpec, Series, Unit, Variant
from app.domain.strategies import StrategyDefinition, Trading
from app.errors import ConfigurationError, SpecificationError, did_you_mean
from app.runs.memory import candles_remembered, forgets_within
from app.strategies.fingerprint import take_fingerprint
from app.strategies.registry import Problem, Registry, build
from app.strategies.sdk import Strategy
from app.wording import counted

#: Problems of one kind that are told one by one.
MOST_TOLD = 5

Params = dict[str, Any]


class Source(NamedTuple):
    """A strategy that a run names."""

    definition: StrategyDefinition
    strategy_id: int | None = None
    revision: int | None = None
    file: str | None = None
    """That it was read from; None when it is of the catalogue."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do."""

    variants: Sequence[Variant]
    units: Sequence[Unit]
    series: Sequence[Series]
    warnings: Sequence[str] = ()
    window: int = 1
    """Candles that a strategy sees."""
    evaluation: Evaluation | None = None
    """Of an evaluate run."""

    @property
    def candles(self) -> int:
        """Candles evaluated by all units together."""
        return sum(unit.candles for unit in self.units)


class Stored(NamedTuple):
    """What Postgres holds of the wanted timeframe."""

    symbols: Sequence[str]
    """Every symbol that has a series of it."""
    series: Sequence[Series]
    """Those whose symbol is wanted."""


class Planner:
    """Plans runs.

    Args:
        registry: what may be loaded.
        window: candles of a worker's window.
        most_units: most units of one run.
    """

    def __init__(self, registry: Registry, window: int, most_units: int) -> None:
        self._registry = registry
        self._window = window
        self._most_units = most_units
        self._problems: list[str] = []
        self._warnings: list[str] = []
        self._needed = 1

    def plan(self, spec: RunSpec, sources: Sequence[Source], stored: Stored, problems: Iterable[str] = ()) -> Plan:
        """Plan a run.

        Args:
            spec: what is asked for.
            sources: the strategies it names, in its order.
            stored: the series there are.
            problems: that were found before, told with those found here.

        Raises:
            ConfigurationError: it cannot be done; names each field, the limit, and how to raise it.
        """
        self._problems, self._warnings, self._needed = list(problems), [], 1
        is_evaluation = spec.kind is RunKind.EVALUATE
        self._check_patterns(spec, stored)
        series = self._markets(stored) if is_evaluation else self._series(spec, stored)
        sources = self._unique(sources)
        self._warn_of_files(sources)
        is_countable = self._check_grid(spec, sources) and self._check_size(spec, sources, series)
        variants = [v for each in sources for v in self._variants(spec, each, is_countable=is_countable)]
        if self._problems:
            raise SpecificationError("specification", list(dict.fromkeys(self._problems)))
        is_short = is_evaluation and spec.method is Method.AUTO
        window = self._needed if is_short else self._window
        return Plan(variants, list(_units(variants, series)), series, self._warnings, window)

    def _check_patterns(self, spec: RunSpec, stored: Stored) -> None:
        for pattern in spec.symbols:
            if not any(fnmatchcase(symbol, pattern) for symbol in stored.symbols):
                hint = did_you_mean(pattern, stored.symbols)
                self._problems.append(f"symbols: no stored {spec.timeframe} series matches {pattern!r}: {hint}")

    def _markets(self, stored: Stored) -> list[Series]:
        """Return the markets of an evaluate run; one whose latest candle is too old stays, to be rejected."""
        stale = [series.symbol for series in stored.series if not series.candles]
        found = f"the latest candles of {len(stale):,} series are older than max_age_candles allows: {_listed(stale)}"
        if stale and len(stale) == len(stored.series):
            self._problems.append(f"to: {found}; say as of when ('to'), or raise CANDLEFLEET_BATCH__MAX_AGE_CANDLES")
        elif stale:
            self._warnings.append(f"{found}: rejected as stale")
        return list(stored.series)

    def _series(self, spec: RunSpec, stored: Stored) -> list[Series]:
        found = [series for series in stored.series if series.candles]
        empty = [series.symbol for series in stored.series if not series.candles]
        if stored.series and not found and spec.from_time < spec.to_time:
            self._problems.append(f"from, to: no candle of {_listed(empty)} in {_range(spec)}")
        elif empty and found:
            self._warnings.append(f"no candle in the range, left out: {_listed(empty)}")
        self._warn_of_gaps(found)
        return found

    def _warn_of_gaps(self, found: Iterable[Series]) -> None:
        gaps = [series for series in found if series.missing]
        if gaps:
            total = sum(series.missing for series in gaps)
            worst = max(gaps, key=lambda series: series.missing)
            self._warnings.append(
                f"{counted(total, 'candle is', 'candles are')} missing inside the ranges of {len(gaps):,} series, most "
                f"of {worst.symbol} ({worst.missing:,}): they are not made up, a gap is one step"
            )

    def _unique(self, sources: Iterable[Source]) -> list[Source]:
        found = list[Source]()
        for source in sources:
            if source in found:
                name = source.definition.name
                self._warnings.append(f"strategies: {name!r} is there more than once and planned once")
            else:
                found.append(source)
        return found

    def _warn_of_files(self, sources: Iterable[Source]) -> None:
        files = dict.fromkeys(source.file for source in sources if source.file is not None)
        self._warnings += [
            f"{file}: its strategies are not verified, one that looks ahead shows figures that nobody can earn: "
            f"'candlefleet strategies verify {file}'"
            for file in files
        ]

    def _check_grid(self, spec: RunSpec, sources: Sequence[Source]) -> bool:
        """Tell whether every param of the grid has values to try."""
        empty = [key for key, values in _leaves(spec.grid) if not values]
        self._problems += [f"grid.{key}: expected values to try, found an empty list" for key in empty]
        # one that is not known is told as that
        names = {*(source.definition.name for source in sources), *spec.strategies}
        self._problems += [
            f"grid.{name}: not a strategy of this run: {did_you_mean(name, names)}"
            for name, value in spec.grid.items()
            if isinstance(value, dict) and name not in names
        ]
        return not empty

    def _check_size(self, spec: RunSpec, sources: Sequence[Source], series: Sequence[Series]) -> bool:
        """Tell whether there are no more units than there may be."""
        combinations = sum(prod(len(values) for values in _grid(spec, source).values()) for source in sources)
        count = combinations * max(1, len(series))
        if count <= self._most_units:
            return True
        self._problems.append(
            f"grid: expected at most {self._most_units:,} units, found {count:,} "
            f"({counted(combinations, 'combination')} of strategy and params on {counted(len(series), 'symbol')}): "
            "take fewer values, or raise CANDLEFLEET_RUNS__MOST_UNITS"
        )
        return False

    def _variants(self, spec: RunSpec, source: Source, *, is_countable: bool) -> Iterator[Variant]:
        name, grid = source.definition.name, _grid(spec, source)
        try:
            cls = self._registry.resolve(source.definition.implementation)
            trading = _trading(source.definition.trading, spec)
        except ConfigurationError as error:
            self._problems.append(f"strategies: {name}: {error}")
            return
        known = cls.Params.model_fields
        unknown = [key for key in grid if key not in known]
        self._problems += [f"grid.{key}: {name} has no such param: {did_you_mean(key, known)}" for key in unknown]
        if is_countable and not unknown:
            yield from self._combined(source, cls, grid, trading, spec)

    def _combined(
        self, source: Source, cls: type[Strategy], grid: Mapping[str, Sequence[Any]], trading: Trading, spec: RunSpec
    ) -> Iterator[Variant]:
        definition, timeframe, refused = source.definition, spec.timeframe, list[str]()
        made, again = set[str](), 0
        for values in product(*grid.values()):
            params = {**definition.params, **dict(zip(grid, values, strict=True))}
            strategy, problems = build(cls, params, definition.name)
            if strategy is not None:
                problems = list(self._refusals(strategy, timeframe))
            if strategy is None or problems:
                refused.append(f"{dict(zip(grid, values, strict=True))}: {'; '.join(map(str, problems))}")
                continue
            identity = strategy.params.model_dump_json()
            if identity in made:
                again += 1
                continue
            made.add(identity)
            self._needed = max(self._needed, candles_remembered(strategy, self._window, spec.timeframe))
            self._warn_of_memory(strategy, spec)
            yield self._variant(source, strategy, trading)
        if again:
            told = counted(again, "combination is", "combinations are")
            self._warnings.append(f"grid: {told} the same as another of {definition.name}, and not planned twice")
        self._tell_refused(definition.name, refused, len(made))

    def _refusals(self, strategy: Strategy, timeframe: Timeframe) -> Iterator[Problem]:
        needed = strategy.warmups.get(timeframe)
        if needed is None:
            yield Problem((), f"cannot work on {timeframe} candles: they do not make those of its higher timeframes")
        elif needed > self._window:
            yield Problem((), f"needs {needed} candles of warm-up, the window is {self._window}")

    def _variant(self, source: Source, strategy: Strategy, trading: Trading) -> Variant:
        definition, params = source.definition, strategy.params
        own, _ = build(type(strategy), definition.params, definition.name)
        is_revision = own is not None and own.params == params
        return Variant(
            strategy=definition.name,
            strategy_id=source.strategy_id,
            revision=source.revision if is_revision else None,
            implementation=definition.implementation,
            params=params.model_dump(mode="json"),
            trading=trading,
            fingerprint=str(take_fingerprint(strategy, self._registry.allowed_modules)),
            category=definition.category,
        )

    def _tell_refused(self, name: str, refused: Sequence[str], made: int) -> None:
        if not refused:
            return
        told = "; ".join(islice(refused, MOST_TOLD)) + (" ..." if len(refused) > MOST_TOLD else "")
        if made:
            count = counted(len(refused), "combination is", "combinations are")
            self._warnings.append(f"{name}: {count} not possible and left out: {told}")
        else:
            self._problems.append(f"strategies: {name}: no combination of params is possible: {told}")

    def _warn_of_memory(self, strategy: Strategy, spec: RunSpec) -> None:
        warning = (
            f"{strategy.name}: its indicators remember more than the window of {self._window} candles, so a few "
            "answers may differ from live ones; method = 'windows' gives exactly those, far more slowly"
        )
        is_windowed = spec.kind is RunKind.EVALUATE or spec.method is Method.WINDOWS or not strategy.vectorised
        is_exact = is_windowed or forgets_within(strategy, self._window, spec.timeframe)
        if not is_exact and warning not in self._warnings:
            self._warnings.append(warning)


def _units(variants: Sequence[Variant], series: Sequence[Series]) -> Iterator[Unit]:
    # the units of a symbol follow each other: a slot that claims several loads its candles once
    pairs = ((each, number) for each in series for number in range(len(variants)))
    for number, (each, variant) in enumerate(pairs):
        yield Unit(number, variant, each.symbol, each.candles)


def _grid(spec: RunSpec, source: Source) -> dict[str, list[Any]]:
    """Return the values to try of one strategy: those for all, then those for it alone."""
    grid = {key: value for key, value in spec.grid.items() if isinstance(value, list)}
    own = spec.grid.get(source.definition.name, {})
    return {**grid, **own} if isinstance(own, dict) else grid


def _leaves(grid: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for key, value in grid.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", values) for inner, values in value.items())
        else:
            yield key, value


def _trading(own: Trading | None, spec: RunSpec) -> Trading:
    stated = {} if own is None else own.model_dump(exclude_unset=True)
    try:
        return Trading.model_validate({**stated, **spec.trading, "enabled": True})
    except ValidationError as error:
        raise ConfigurationError(f"trading: {explain(error)}") from error


def _range(spec: RunSpec) -> str:
    return f"{spec.from_time:%Y-%m-%d %H:%M} to {spec.to_time:%Y-%m-%d %H:%M} UTC"


def _listed(symbols: Sequence[str]) -> str:
    return ", ".join(symbols[:MOST_TOLD]) + (
        f" and {len(symbols) - MOST_TOLD} more" if len(symbols) > MOST_TOLD else ""
    )
