"""The validation record of a run: what must hold of it, what was found. Pure; stored with the run and shown with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from app.domain.base import Value
from app.domain.runs import RunKind
from app.domain.selection import ROUNDING_PERCENT, Held, Selected, Selection, SelectionRules

#: Least markets a second, each with all strategies, and most memory of all slots of a run, MiB (requirement B8).
LEAST_MARKETS_PER_S, MOST_MEMORY_MB = 10.0, 2048.0

#: Errors kept with a record; all are counted.
MOST_ERRORS = 50

_NOTHING = "nothing was selected"


class UnitError(Value):
    """How a unit failed, and which one."""

    unit: int
    strategy: str
    symbol: str
    timeframe: str
    error_class: str
    error: str
    attempts: Annotated[int, Field(ge=1)] = 1


class RunFigures(Value):
    """What was measured of a run."""

    units: Annotated[int, Field(ge=0)]
    """Planned ones."""
    succeeded: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)] = 0
    cancelled: Annotated[int, Field(ge=0)] = 0
    markets: Annotated[int, Field(ge=0)]
    """Symbols that at least one strategy evaluated."""
    evaluations: Annotated[int, Field(ge=0)]
    """Times that a strategy was asked about a market: units that succeeded, or all candles of those of a backtest."""
    elapsed_s: Annotated[float, Field(ge=0)]
    """From the start to the last unit's end, pauses left out."""
    mean_ms: Annotated[float, Field(ge=0)]
    """Mean time of a unit in its slot."""
    memory_mb: Annotated[float, Field(ge=0)]
    """Most memory of the slots that worked on the run at one time, MiB: what slots share is counted in proportion."""
    cpu_percent: Annotated[float, Field(ge=0)]
    """Of one core, all slots of the run together: 200 is two cores in full use."""
    errors: tuple[UnitError, ...] = ()

    @property
    def markets_per_s(self) -> float:
        """Symbols a second, each with all strategies."""
        return self.markets / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def evaluations_per_s(self) -> float:
        """Evaluations a second."""
        return self.evaluations / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def success_percent(self) -> float:
        """Units that succeeded, of those that ended by themselves."""
        ended = self.succeeded + self.failed
        return 100 * self.succeeded / ended if ended else 0.0


class Check(Value):
    """One thing that must hold."""

    name: str
    expected: str
    found: str
    passed: bool


class ValidationRecord(Value):
    """What was measured of a run, and what must hold of it."""

    figures: RunFigures
    markets_per_s: float
    evaluations_per_s: float = 0.0
    success_percent: float
    error_count: int
    """All of them; the figures keep the first ones only."""
    checks: tuple[Check, ...]
    passed: bool


def validate(
    kind: RunKind,
    figures: RunFigures,
    rules: SelectionRules,
    selection: Selection | None = None,
    held: tuple[Held, ...] = (),
) -> ValidationRecord:
    """Check what a run promises (requirement B8).

    Args:
        kind: of the run.
        figures: what was measured.
        rules: that the selection was made by.
        selection: what came of it; None for a run that selects nothing: what is said of positions then holds of none.
        held: positions that there were before.
    """
    made = selection or Selection((), (), sum(each.risk_percent for each in held), 0.0)
    checks = (*_check_run(figures, per_market=kind is RunKind.EVALUATE), *_check_selection(made, held, rules))
    return ValidationRecord(
        figures=figures.model_copy(update={"errors": figures.errors[:MOST_ERRORS]}),
        markets_per_s=figures.markets_per_s,
        evaluations_per_s=figures.evaluations_per_s,
        success_percent=figures.success_percent,
        error_count=len(figures.errors),
        checks=checks,
        passed=all(check.passed for check in checks),
    )


def _check_run(figures: RunFigures, *, per_market: bool) -> Iterator[Check]:
    ended = figures.succeeded + figures.failed
    yield Check(
        name="finished",
        expected="every unit succeeded or failed",
        found=f"{figures.succeeded:,} succeeded, {figures.failed:,} failed, {figures.cancelled:,} cancelled",
        passed=ended == figures.units,
    )
    yield _check_throughput(figures, per_market=per_market)
    yield Check(
        name="memory",
        expected=f"under {MOST_MEMORY_MB:,.0f} MiB",
        found=f"{figures.memory_mb:,.0f} MiB",
        passed=figures.memory_mb < MOST_MEMORY_MB,
    )


def _check_throughput(figures: RunFigures, *, per_market: bool) -> Check:
    # a backtest asks a strategy about a market once for each candle: there, each time counts
    evaluations = f"{figures.evaluations_per_s:,.1f} evaluations/s"
    found = f"{figures.markets_per_s:,.1f} markets/s, {evaluations}" if per_market else evaluations
    speed = figures.markets_per_s if per_market else figures.evaluations_per_s
    return Check(
        name="throughput",
        expected=f"above {LEAST_MARKETS_PER_S:g} {'markets' if per_market else 'evaluations'}/s",
        found=found,
        passed=speed > LEAST_MARKETS_PER_S,
    )


def _check_selection(selection: Selection, held: tuple[Held, ...], rules: SelectionRules) -> Iterator[Check]:
    yield _check_risk(selection, held, rules)
    yield _check_edges(selection, rules)
    yield _check_diversification(selection, held, rules)
    yield _check_protection(selection)


def _check_risk(selection: Selection, held: tuple[Held, ...], rules: SelectionRules) -> Check:
    # what was held before may be over the limit already: then nothing may have come on top
    limit, before = rules.max_portfolio_risk_percent, sum(each.risk_percent for each in held)
    most = max(limit, before)
    over = f", or the {before:.2f} % held before" if before > limit else ""
    return Check(
        name="portfolio risk",
        expected=f"at most {limit:g} % of the portfolio{over}",
        found=f"{selection.risk_percent:.2f} %",
        passed=selection.risk_percent <= most + ROUNDING_PERCENT,
    )


def _check_edges(selection: Selection, rules: SelectionRules) -> Check:
    edges = [each.candidate.edge_percent for each in selection.selected]
    least = min((edge for edge in edges if edge is not None), default=None)
    return Check(
        name="edges",
        expected=f"each at least {rules.min_edge_percent:g} %",
        found=_NOTHING if least is None else f"least {least:.2f} % of {len(edges)}",
        passed=all(edge is not None and edge >= rules.min_edge_percent for edge in edges),
    )


def _check_diversification(selection: Selection, held: tuple[Held, ...], rules: SelectionRules) -> Check:
    before = Counter(each.category for each in held)
    after = before + Counter(each.candidate.category for each in selection.selected)
    fullest = after.most_common(1)
    grown = [name for name, count in after.items() if count > max(rules.per_category, before[name])]
    return Check(
        name="diversification",
        expected=f"none grew beyond {rules.per_category} positions" if rules.require_diversification else "off",
        found=f"most {fullest[0][1]} ({fullest[0][0]})" if fullest else _NOTHING,
        passed=not (rules.require_diversification and grown),
    )


def _check_protection(selection: Selection) -> Check:
    positions = selection.selected
    bare = [each.candidate.symbol for each in positions if not _is_protected(each)]
    found = f"set on {len(positions) - len(bare)} of {len(positions)}" + (f", not on {bare[0]}" if bare else "")
    return Check(
        name="stops and targets",
        expected="set on every position",
        found=found if positions else _NOTHING,
        passed=not bare,
    )


def _is_protected(position: Selected) -> bool:
    side, price = position.candidate.action, position.candidate.price
    return side * (price - position.stop) > 0 and side * (position.target - price) > 0
