"""What the page of a report shows of its document: what is cut so that it stays readable, and what is said of it."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from app.runs.report.charts import CurveChart, Histogram, draw_curve, draw_histogram, draw_spark
from app.runs.report.document import DataRange, Document, HeatMap, RejectedCandidate, UnitReport, VariantVersion
from app.runs.report.formats import moment, number
from app.runs.report.grids import Cell, Grid, build_grids
from app.runs.report.heat import find_limit, step_of
from app.runs.report.sampling import SampledCurve

#: Rows of the leaderboard, and curves drawn large and small.
MOST_UNITS, MOST_CHARTS = 100, 13
#: Rows of the heat map: half of them the best symbols, half the worst.
MOST_SYMBOLS = 60
#: Rows of the lists of series, rejections, failed units, and variants with their fingerprints.
MOST_SERIES, MOST_REJECTED, MOST_FAILED, MOST_VERSIONS = 100, 100, 50, 50
#: Strategies, or params of them, whose Sharpe ratios are laid out.
MOST_GRIDS = 12
#: Fewer units than this are read one by one: their distribution says nothing.
FEWEST_IN_HISTOGRAM = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A unit of the leaderboard."""

    rank: int
    unit: UnitReport
    spark: str | None


@dataclass(frozen=True, slots=True)
class Panel:
    """A unit whose curve is drawn."""

    rank: int
    unit: UnitReport
    curve: SampledCurve
    chart: CurveChart


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A cell of the heat map."""

    value: float | None
    step: int | None


@dataclass(frozen=True, slots=True)
class HeatTable:
    """The heat map as it is shown."""

    rows: list[tuple[str, list[HeatCell]]]
    limit: float
    cut: str | None


@dataclass(frozen=True, slots=True)
class GridTable:
    """Sharpe ratios by params as they are shown."""

    grid: Grid
    limit: float

    def step(self, cell: Cell) -> int | None:
        """Return the step of a cell's colour."""
        return step_of(cell.sharpe, self.limit)


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit that failed."""

    label: str
    where: str
    state: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that an evaluate run judges by."""

    name: str
    text: str
    is_own: bool
    """Whether the run asked for it: otherwise it is the setting of that time."""


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the template needs beside the document; `..._cut` says what is left out, None when nothing is."""

    document: Document
    rows: list[Row]
    rows_cut: str | None
    panels: list[Panel]
    panels_cut: str | None
    grids: list[GridTable]
    sharpes: Histogram | None
    best_of_luck: float | None
    """Sharpe ratio a year that the best of so many worthless trials is expected to show."""
    heat: HeatTable | None
    first: datetime | None
    """Of all candles the first open time, and the last close time."""
    last: datetime | None
    series: Sequence[DataRange]
    series_cut: str | None
    rejected: Sequence[RejectedCandidate]
    rejected_cut: str | None
    all_rejected: int
    reasons: list[tuple[str, int]]
    failed: Sequence[Failure]
    failed_cut: str | None
    spec: list[tuple[str, str]]
    rules: list[Rule]
    """Of an evaluate run."""
    variants: Sequence[VariantVersion]
    variants_cut: str | None


def build_page(document: Document) -> Page:
    """Choose what is shown of a document."""
    measured = [(rank, unit) for rank, unit in enumerate(document.units, 1) if unit.metrics is not None]
    drawn = _choose_curves(measured)
    failed = _failures(document)
    rejected = document.selection.rejected if document.selection else ()
    reasons = (document.selection and document.selection.reasons) or Counter(each.reason for each in rejected)
    all_rejected = sum(reasons.values())
    luck = _best_of_luck(document.units)
    return Page(
        document=document,
        rows=[_row(rank, unit) for rank, unit in measured[:MOST_UNITS]],
        rows_cut=_cut("best of", MOST_UNITS, len(measured), "units"),
        panels=[Panel(rank, unit, curve, draw_curve(curve)) for rank, unit, curve in drawn[:MOST_CHARTS]],
        panels_cut=_panels_cut(drawn[:MOST_CHARTS], len(measured)),
        grids=[GridTable(grid, _grid_limit(grid)) for grid in build_grids(document.units)[:MOST_GRIDS]],
        sharpes=_draw_sharpes(document.units, luck),
        best_of_luck=luck,
        heat=_build_heat(document.heat),
        first=min((each.from_time for each in document.data), default=None),
        last=max((each.to_time for each in document.data), default=None),
        series=document.data[:MOST_SERIES],
        series_cut=_cut("first of", MOST_SERIES, len(document.data), "series"),
        rejected=rejected[:MOST_REJECTED],
        rejected_cut=_cut("best of", MOST_REJECTED, all_rejected, "candidates") if rejected else None,
        all_rejected=all_rejected,
        reasons=Counter(reasons).most_common(),
        failed=failed[:MOST_FAILED],
        failed_cut=_cut("first of", MOST_FAILED, len(failed), "failed units"),
        spec=list(flatten(_stated(document))),
        rules=_rules(document),
        variants=document.variants[:MOST_VERSIONS],
        variants_cut=_cut("first of", MOST_VERSIONS, len(document.variants), "variants"),
    )


def _choose_curves(measured: Sequence[tuple[int, UnitReport]]) -> list[tuple[int, UnitReport, SampledCurve]]:
    """Return the units to draw: the best one of each strategy and symbol; of a single pair all, best first.

    The best variants of one strategy on one symbol are alike: twelve of their curves say what one says.
    """
    drawn = [(rank, unit, unit.curve) for rank, unit in measured if unit.curve is not None]
    firsts: dict[tuple[str, str], tuple[int, UnitReport, SampledCurve]] = {}
    for each in drawn:
        firsts.setdefault((each[1].strategy, each[1].symbol), each)
    return list(firsts.values()) if len(firsts) > 1 else drawn


def _panels_cut(drawn: Sequence[tuple[int, UnitReport, SampledCurve]], count: int) -> str | None:
    pairs = {(unit.strategy, unit.symbol) for _, unit, _ in drawn}
    which = "best of each strategy on a symbol, of" if len(pairs) > 1 else "best ones with a stored curve, of"
    return _cut(which, len(drawn), count, "units")


def _grid_limit(grid: Grid) -> float:
    return find_limit(cell.sharpe for _, cells in grid.rows for cell in cells)


def _stated(document: Document) -> dict[str, JsonValue]:
    """Return what was asked for without what was left open."""
    return {name: value for name, value in document.spec.items() if value not in (None, {}, [])}


def _rules(document: Document) -> list[Rule]:
    """Return by what an evaluate run judges, and which of it the run asked for itself."""
    if document.in_force is None:
        return []
    force, asked = document.in_force, document.spec.get("selection")
    own = set(asked) if isinstance(asked, dict) else set()
    as_of, oldest = moment(force.as_of), moment(force.oldest)
    return [
        Rule("as of, UTC", as_of, is_own="to" in document.spec),
        Rule("max_age_candles", str(force.max_age_candles), is_own=document.spec.get("max_age_candles") is not None),
        Rule("oldest candle opened, UTC", oldest, is_own=False),
        Rule("window, candles", str(force.window), is_own=False),
        *(Rule(name, json.dumps(value), is_own=name in own) for name, value in force.rules.model_dump().items()),
    ]


def _failures(document: Document) -> list[Failure]:
    units = [Failure(unit.label, f"{unit.symbol} {unit.timeframe}", unit.state, unit.error) for unit in document.units]
    answers = [Failure(each.strategy, each.symbol, each.state, each.error) for each in document.answers]
    return [each for each in (*units, *answers) if each.error is not None]


def flatten(spec: dict[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested tables under dotted names, as TOML writes them."""
    for name, value in spec.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _cut(which: str, shown: int, count: int, things: str) -> str | None:
    return None if count <= shown else f"the {shown:,} {which} {count:,} {things}"


def _row(rank: int, unit: UnitReport) -> Row:
    return Row(rank, unit, None if unit.curve is None else draw_spark(unit.curve))


def _best_of_luck(units: Sequence[UnitReport]) -> float | None:
    return next((unit.deflated.benchmark for unit in units if unit.deflated is not None), None)


def _draw_sharpes(units: Sequence[UnitReport], luck: float | None) -> Histogram | None:
    sharpes = [unit.metrics.sharpe for unit in units if unit.metrics is not None and unit.metrics.sharpe is not None]
    return draw_histogram(sharpes, luck) if len(sharpes) >= FEWEST_IN_HISTOGRAM else None


def _build_heat(heat: HeatMap) -> HeatTable | None:
    if len(heat.rows) * len(heat.columns) < 2:
        return None
    shown = _ends(len(heat.rows), MOST_SYMBOLS)
    limit = find_limit(value for place in shown for value in heat.cells[place])
    return HeatTable(
        rows=[(heat.rows[place], _heat_cells(heat.cells[place], limit)) for place in shown],
        limit=limit,
        cut=_heat_cut(heat, len(shown)),
    )


def _heat_cells(values: Sequence[float | None], limit: float) -> list[HeatCell]:
    return [HeatCell(value, step_of(value, limit)) for value in values]


def _heat_cut(heat: HeatMap, shown: int) -> str | None:
    if shown == len(heat.rows):
        return None
    half = shown // 2
    best, worst = (_median(heat.cells[place]) for place in (half, len(heat.rows) - half - 1))
    left_out = f"those left out have medians from {number(best, 1)} % to {number(worst, 1)} %"
    return f"the {half} best and {half} worst of {len(heat.rows):,} symbols; {left_out}"


def _median(values: Sequence[float | None]) -> float:
    return statistics.median(value for value in values if value is not None)


def _ends(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [*range(most // 2), *range(count - most // 2, count)]
