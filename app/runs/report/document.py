"""The document of a run's report: what `runs report --json` prints, and everything the page shows. Public shape."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue

from app.domain.base import UtcDatetime, Value
from app.domain.candles import Timeframe
from app.domain.selection import Selection, SelectionRules
from app.runs.deflation import DeflatedSharpe
from app.runs.metrics import Metrics
from app.runs.report.answers import InForce, UnitAnswer
from app.runs.report.sampling import SampledCurve
from app.runs.validation import ValidationRecord

#: Variants that a heat map has columns of their own for; with more, the variants of one strategy share a column.
MOST_VARIANTS = 24


class RunSummary(Value):
    """The run itself."""

    id: int
    kind: Literal["backtest", "evaluate"]
    state: str
    created_at: UtcDatetime
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    units: int
    succeeded: int
    failed: int = 0
    cancelled: int = 0
    candles: int
    """Candles that were evaluated, over all units."""
    trimmed: bool = False
    """Whether its details were deleted since: trades, signals, curves, answers, rejections. Figures are whole."""


class DataRange(Value):
    """The candles of one series that the run is about."""

    symbol: str
    timeframe: Timeframe
    from_time: UtcDatetime
    """Open time of the first candle."""
    to_time: UtcDatetime
    """Close time of the last candle."""
    candles: int
    gaps: int
    """Breaks in the grid."""
    missing: int
    """Candles absent in them."""
    longest_gap_s: float = 0.0


class UnitReport(Value):
    """One strategy on one symbol."""

    id: int
    strategy: str
    revision: int | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict)
    symbol: str
    timeframe: Timeframe
    state: str
    error: str | None = None
    metrics: Metrics | None = None
    deflated: DeflatedSharpe | None = None
    curve: SampledCurve | None = None
    """Of the best units only: a run has too many of them."""

    differing: tuple[str, ...] = ()
    """Names of the params in which the variants of this strategy differ within the run."""

    @property
    def distinction(self) -> str:
        """The params that tell it from the strategy's other variants."""
        return write_params({name: self.params.get(name) for name in self.differing})

    @property
    def label(self) -> str:
        """The strategy, and what tells it from its other variants."""
        return f"{self.strategy} ({self.distinction})" if self.differing else self.strategy


def write_params(params: Mapping[str, JsonValue]) -> str:
    """Write params in one line: fast 12, slow 26."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in params.items())


class HeatMap(Value):
    """A measure of every symbol and strategy; None where no unit has it."""

    measure: str
    columns: tuple[str, ...]
    """Variants of strategies, or strategies when there are too many variants: then a cell is the median of them."""
    by_variant: bool
    rows: tuple[str, ...]
    """Symbols, best median first."""
    cells: tuple[tuple[float | None, ...], ...]
    """A tuple a row."""


class SelectedPosition(Value):
    """A position to be opened."""

    symbol: str
    strategy: str
    category: str
    action: int
    edge_percent: float
    strength: float
    price: float
    stop: float
    target: float
    size_percent: float
    risk_percent: float


class RejectedCandidate(Value):
    """A candidate that becomes no position."""

    symbol: str
    strategy: str
    category: str
    action: int
    edge_percent: float | None
    reason: str
    detail: str


class SelectionReport(Value):
    """What was made of the candidates of a run, best edge first."""

    rules: SelectionRules
    selected: tuple[SelectedPosition, ...]
    rejected: tuple[RejectedCandidate, ...]
    """Those that came closest; there may be more."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """How many candidates were rejected for which reason, all of them."""
    risk_percent: float
    exposure_percent: float

    @classmethod
    def of(cls, selection: Selection, rules: SelectionRules) -> SelectionReport:
        """Build it from a selection and the rules it was made by."""
        return cls(
            rules=rules,
            selected=tuple(
                SelectedPosition(**_fields(SelectedPosition, {**each.candidate._asdict(), **each._asdict()}))
                for each in selection.selected
            ),
            rejected=tuple(
                RejectedCandidate(**_fields(RejectedCandidate, {**each.candidate._asdict(), **each._asdict()}))
                for each in selection.rejected
            ),
            reasons=dict(Counter(each.reason.value for each in selection.rejected)),
            risk_percent=selection.risk_percent,
            exposure_percent=selection.exposure_percent,
        )


class VariantVersion(Value):
    """Which code and params a variant of the run is."""

    strategy: str
    revision: int | None = None
    """Of the catalogue; None when its params are others, or it came from a file."""
    implementation: str
    params: dict[str, JsonValue] = Field(default_factory=dict)
    fingerprint: str
    """Of its code and params, and of the libraries, when it was planned: a slot with other code refuses its units."""


class Document(Value):
    """Everything that is told of a run."""

    version: Literal[1] = 1
    """Of this shape; it grows when a field changes its meaning or goes."""
    made_at: UtcDatetime
    run: RunSummary
    spec: dict[str, JsonValue]
    """What the operator asked for."""
    data: tuple[DataRange, ...]
    warnings: tuple[str, ...] = ()
    """What was worth knowing when it was planned."""
    versions: dict[str, str]
    variants: tuple[VariantVersion, ...] = ()
    """In the order of their numbers in the run."""
    units: tuple[UnitReport, ...]
    """Of a backtest. Best Sharpe ratio first; units without one last."""
    heat: HeatMap
    in_force: InForce | None = None
    """Of an evaluate run."""
    selection: SelectionReport | None = None
    answers: tuple[UnitAnswer, ...] = ()
    """All units of an evaluate run: the selected by rank, then the best edge first."""
    validation: ValidationRecord | None = None


def build_document(
    *,
    made_at: UtcDatetime,
    run: RunSummary,
    spec: dict[str, JsonValue],
    data: Sequence[DataRange],
    versions: dict[str, str],
    warnings: Sequence[str] = (),
    variants: Sequence[VariantVersion] = (),
    units: Iterable[UnitReport],
    in_force: InForce | None = None,
    selection: SelectionReport | None = None,
    answers: Sequence[UnitAnswer] = (),
    validation: ValidationRecord | None = None,
) -> Document:
    """Build the document: the units are ranked, and their returns laid out by symbol and strategy."""
    ranked = tuple(sorted(_with_differences(units), key=_rank))
    return Document(
        made_at=made_at,
        run=run,
        spec=spec,
        data=tuple(sorted(data, key=lambda each: (each.symbol, each.timeframe.duration))),
        versions=versions,
        warnings=tuple(warnings),
        variants=tuple(variants),
        units=ranked,
        heat=build_heat(ranked),
        in_force=in_force,
        selection=selection,
        answers=tuple(answers),
        validation=validation,
    )


def build_heat(units: Sequence[UnitReport]) -> HeatMap:
    """Lay out the total return of every unit by symbol and strategy."""
    by_variant = len({unit.label for unit in units if unit.metrics}) <= MOST_VARIANTS
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for unit in units:
        if unit.metrics is not None:
            column = unit.label if by_variant else unit.strategy
            found[unit.symbol][column].append(unit.metrics.total_return_percent)
    columns = tuple(sorted({column for cells in found.values() for column in cells}))
    medians = {
        symbol: {name: statistics.median(values) for name, values in row.items()} for symbol, row in found.items()
    }
    rows = tuple(sorted(medians, key=lambda symbol: (-statistics.median(medians[symbol].values()), symbol)))
    return HeatMap(
        measure="total_return_percent",
        columns=columns,
        by_variant=by_variant,
        rows=rows,
        cells=tuple(tuple(medians[symbol].get(column) for column in columns) for symbol in rows),
    )


def _with_differences(units: Iterable[UnitReport]) -> list[UnitReport]:
    known = list(units)
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for unit in known:
        for name, value in unit.params.items():
            values[unit.strategy][name].add(json.dumps(value, sort_keys=True))
    differing = {
        strategy: tuple(name for name, found in params.items() if len(found) > 1) for strategy, params in values.items()
    }
    return [unit.model_copy(update={"differing": differing.get(unit.strategy, ())}) for unit in known]


def _rank(unit: UnitReport) -> tuple[bool, float, float, int]:
    if unit.metrics is None:
        return True, 0.0, 0.0, unit.id
    sharpe = unit.metrics.sharpe
    return sharpe is None, -(sharpe or 0.0), -unit.metrics.total_return_percent, unit.id


def _fields(model: type[Value], values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in model.model_fields}


def _shown(value: JsonValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
