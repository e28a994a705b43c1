"""Runs: what an operator asks for, and the units it is planned into. Knows nothing of how they are executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from app.domain.base import UtcDatetime, Value
from app.domain.candles import EPOCH, Timeframe
from app.domain.selection import SelectionRules
from app.domain.strategies import Pattern, Trading

#: Candles of a unit that `RunLimits.timeout_ms` is meant for: a unit of more has that much more time.
CANDLES_PER_TIMEOUT = 10_000

#: What `to` is when an evaluate run leaves it out: later than any candle.
LATEST = datetime(9999, 1, 1, tzinfo=UTC)


class RunKind(StrEnum):
    """What a run does."""

    BACKTEST = "backtest"
    EVALUATE = "evaluate"


class RunState(StrEnum):
    """How far a run is; only a running one gets work done.

    running <-> paused, both -> cancelled; running -> complete when no unit is pending; complete or cancelled ->
    running by a retry of its failed units.
    """

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    COMPLETE = "complete"


#: States in which nothing of a run is executed any more.
ENDED = (RunState.COMPLETE, RunState.CANCELLED)


class UnitState(StrEnum):
    """What became of a unit. One that is executed now is pending: only its result makes it anything else."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SliceState(StrEnum):
    """What became of a slice of an evaluate run."""

    PENDING = "pending"
    DONE = "done"
    CANCELLED = "cancelled"


class Method(StrEnum):
    """How a unit's signals are computed."""

    AUTO = "auto"
    """The whole range at once where the strategy is vectorised; of one candle, as many before it as are remembered."""
    WINDOWS = "windows"
    """Each candle on its own window, exactly as live does."""


class RunLimits(Value):
    """What a run and its units may take."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 5000
    """Soft limit of a unit in milliseconds, wall clock, for every CANDLES_PER_TIMEOUT candles or part of them."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts at a unit after the first one failed."""
    memory_mb: Annotated[int, Field(ge=16, le=65_536)] = 512
    """Memory that the strategy's code may add to its slot, MiB."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 50
    """Most slots that work on the run at the same time."""
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Most units that a slot claims at once."""

    def unit_timeout_ms(self, candles: int) -> int:
        """Return the soft limit of a unit of so many candles."""
        return self.timeout_ms * max(1, -(-candles // CANDLES_PER_TIMEOUT))


#: A param of a strategy and the values to try; or a strategy's name and such a table for it alone.
Grid = dict[str, list[JsonValue] | dict[str, list[JsonValue]]]


def _never(_: object) -> object:
    raise ValueError("a run always trades; leave the key out")


class TradingOverrides(Trading):
    """What a run may say of `Trading`: everything but whether."""

    enabled: Annotated[bool, BeforeValidator(_never)] = True


def _checked_by(model: type[Value]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what checks overrides of a model, each key of them, and leaves them as they are."""

    def check(overrides: dict[str, Any]) -> dict[str, Any]:
        model.model_validate(overrides)
        return overrides

    return check


def _as_utc(moment: object) -> object:
    """Read a date, or a moment without a zone, as UTC: people write both."""
    try:
        parsed = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        return moment
    if isinstance(parsed, date) and not isinstance(parsed, datetime):
        parsed = datetime(parsed.year, parsed.month, parsed.day, tzinfo=UTC)
    return parsed.replace(tzinfo=UTC) if isinstance(parsed, datetime) and parsed.tzinfo is None else parsed


class RunSpec(Value):
    """What an operator asks for."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: RunKind = RunKind.BACKTEST
    strategies: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names in the catalogue, or definition files (.toml, .yaml), of which every strategy is taken."""
    symbols: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    """Shell-style wildcards for stored series."""
    timeframe: Timeframe
    from_time: Annotated[UtcDatetime, BeforeValidator(_as_utc), Field(alias="from")] = EPOCH
    """Open time of the first candle that counts; those before it only warm up. UTC where no zone is stated. A backtest
    must state it."""
    to_time: Annotated[UtcDatetime, BeforeValidator(_as_utc), Field(alias="to")] = LATEST
    """Open time of the first candle that does not count any more. An evaluate run may leave it out: as of now."""
    grid: Grid = Field(default_factory=dict)
    method: Method = Method.AUTO
    trading: Annotated[dict[str, Any], AfterValidator(_checked_by(TradingOverrides))] = Field(default_factory=dict)
    """Overrides of each strategy's own `trading`, such as capital, fee_percent, slippage_percent."""
    limits: RunLimits = RunLimits()
    selection: Annotated[dict[str, Any], AfterValidator(_checked_by(SelectionRules))] = Field(default_factory=dict)
    """Overrides of the rules that positions are selected by, for an evaluate run."""
    max_age_candles: Annotated[int, Field(ge=0)] | None = None
    """Most candles that may have closed after a market's latest one; None is the setting. For an evaluate run."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Idempotency key: a start with one that was used returns the run that it started."""

    def wants(self, symbol: str) -> bool:
        """Tell whether a symbol is one of the run's."""
        return any(fnmatchcase(symbol, pattern) for pattern in self.symbols)

    @property
    def contradictions(self) -> tuple[Contradiction, ...]:
        """What is wrong between keys, each of which may be right: a specification with one cannot be planned."""
        return tuple(_contradictions(self))


class Contradiction(NamedTuple):
    """What is wrong between keys of a specification."""

    keys: tuple[str, ...]
    text: str


def _contradictions(spec: RunSpec) -> Iterator[Contradiction]:
    given = spec.model_fields_set
    if spec.kind is RunKind.BACKTEST:
        foreign = {"selection": spec.selection, "max_age_candles": spec.max_age_candles is not None}
        missing = [key for key, name in (("from", "from_time"), ("to", "to_time")) if name not in given]
        yield from (Contradiction((key, "kind"), f"{key}: required for a backtest") for key in missing)
    else:
        foreign = {"from": spec.from_time != EPOCH, "trading": spec.trading}
    for key, is_given in foreign.items():
        if is_given:
            yield Contradiction((key, "kind"), f"{key}: means nothing for a run of kind {spec.kind}; leave it out")
    if spec.from_time >= spec.to_time:
        found = f"from {spec.from_time.isoformat()} and to {spec.to_time.isoformat()}"
        yield Contradiction(("from", "to"), f"from, to: from must be before to, found {found}")


class Variant(Value):
    """One strategy with one set of params, as a run evaluates it."""

    strategy: str
    strategy_id: int | None
    """In the catalogue; None when it came from a file."""
    revision: int | None
    """Of the catalogue; None when its params are others, or it came from a file."""
    implementation: str
    params: dict[str, Any]
    """Complete: the defaults filled in."""
    trading: Trading
    fingerprint: str
    """Of the code it was planned with."""
    category: str = "general"
    """Of the strategy: what a selection diversifies over."""


class Evaluation(NamedTuple):
    """What an evaluate run has that a backtest has not."""

    since: datetime
    """Open time of the oldest candle that is no stale one."""
    until: datetime
    """Open time of the first candle that does not count: the run looks at what was there before it."""
    rules: SelectionRules
    """That its positions are selected by."""


class Series(NamedTuple):
    """A stored series, as far as a run is concerned."""

    symbol: str
    candles: int
    """In the run's range."""
    missing: int
    """Candles between the first and the last of these that are not stored."""


class Unit(NamedTuple):
    """One variant on one symbol over the run's range."""

    number: int
    """In its run, from 0; the units of a symbol follow each other."""
    variant: int
    """Number of its variant in the run."""
    symbol: str
    candles: int


class Slice(NamedTuple):
    """Markets of an evaluate run that are claimed, evaluated and recorded together, for some of its variants."""

    number: int
    """In its run, from 0."""
    first_market: int
    """Number of the first of its markets in the run; the others follow."""
    symbols: tuple[str, ...]
    variants: tuple[int, ...]
    """Numbers of the variants."""


def cut_slices(symbols: Sequence[str], variants: int, markets: int) -> Iterator[Slice]:
    """Cut the markets of a run into slices.

    Args:
        symbols: of the run, in order.
        variants: how many it has.
        markets: of each slice.
    """
    for number, first in enumerate(range(0, len(symbols), markets)):
        yield Slice(number, first, tuple(symbols[first : first + markets]), tuple(range(variants)))
