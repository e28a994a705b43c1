"""Comparisons: a run with what live recorded of the same candles, or a backtest with another one.

What evaluate runs say is compared by `app.operations_compare_evaluations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from app.domain.runs import RunKind
from app.errors import ConfigurationError, WrongStateError
from app.operations import Operations
from app.operations_compare_evaluations import TOLERANCE, find_answers_that_differ
from app.storage import comparing, runs
from app.storage.comparing import Said, SaidByUnit
from app.storage.evaluations import SaidTwice
from app.storage.run_deletion import is_trimmed


class Difference(NamedTuple):
    """A decision that is not what live recorded."""

    strategy: str
    symbol: str
    open_time: datetime
    live_action: int
    run_action: int
    live_strength: float
    run_strength: float | None
    """None where the run kept none: it keeps those at which its action changed."""


@dataclass(frozen=True, slots=True)
class LiveComparison:
    """What came of comparing a run with live."""

    units: int
    """That have a revision of the catalogue."""
    decisions: int
    """Of these, those that live recorded as well."""
    differences: Sequence[Difference] | Sequence[SaidTwice]


class UnitComparison(NamedTuple):
    """A unit that two runs have in common."""

    strategy: str
    params: str
    symbol: str
    first: dict[str, Any]
    second: dict[str, Any]

    @property
    def differs(self) -> bool:
        """Whether any figure is another."""
        return self.first != self.second


@dataclass(frozen=True, slots=True)
class RunComparison:
    """What came of comparing two runs."""

    units: Sequence[UnitComparison]
    """That both have, in the order of the first."""
    only_first: int
    only_second: int


def compare_live(operations: Operations, run_id: int) -> LiveComparison:
    """Compare every decision of a run with the outcome that live recorded of the same strategy, revision and candle.

    Of a backtest, actions are compared at every candle and strengths where the action changed; of an evaluate run,
    everything that its strategies said. Numbers are equal within a tolerance.

    Raises:
        UnknownRunError: there is no such run.
        WrongStateError: its signals were deleted.
    """
    decisions, differences, units = 0, list[Difference](), 0
    with operations.reading() as connection:
        spec = runs.load_run(connection, run_id).spec
        if is_trimmed(connection, run_id):
            raise WrongStateError(
                f"run {run_id}: its signals were deleted with its details: start it anew to compare it"
            )
        if spec.kind is RunKind.EVALUATE:
            return LiveComparison(*find_answers_that_differ(connection, run_id, spec.timeframe, spec.method))
        place = (spec.timeframe.value, spec.from_time, spec.to_time)
        for unit in list(comparing.load_unit_signals(connection, run_id)):
            live = comparing.load_live_signals(connection, unit, *place)
            units, decisions = units + 1, decisions + len(live.opened_ms)
            differences += find_differences(unit, live)
    return LiveComparison(units, decisions, differences)


def find_differences(unit: SaidByUnit, live: Said) -> list[Difference]:
    """Return the candles at which a unit's strategy said something else than live; pure."""
    changes = unit.changes
    held = np.searchsorted(changes.opened_ms, live.opened_ms, side="right") - 1
    changed_here = changes.opened_ms[held] == live.opened_ms
    is_other = changes.action[held] != live.action
    is_other |= changed_here & (np.abs(changes.strength[held] - live.strength) > TOLERANCE)
    return [
        Difference(
            unit.strategy,
            unit.symbol,
            datetime.fromtimestamp(int(live.opened_ms[at]) / 1000, UTC),
            int(live.action[at]),
            int(changes.action[held[at]]),
            float(live.strength[at]),
            float(changes.strength[held[at]]) if changed_here[at] else None,
        )
        for at in np.flatnonzero(is_other)
    ]


def find_kind(operations: Operations, first: int, second: int) -> RunKind:
    """Return which kind two runs are of.

    Raises:
        UnknownRunError: there is no such run.
        ConfigurationError: they are of two kinds.
    """
    with operations.reading() as connection:
        kinds = [runs.load_run(connection, run_id).spec.kind for run_id in (first, second)]
    if len(set(kinds)) > 1:
        found = " and ".join(
            f"run {run_id} of kind {kind}" for run_id, kind in zip((first, second), kinds, strict=True)
        )
        raise ConfigurationError(
            f"expected two runs of one kind, found {found}: an evaluate run has answers about one candle and a "
            "selection, a backtest has figures of a range. Both can be compared with --live"
        )
    return kinds[0]


def compare_runs(operations: Operations, first: int, second: int) -> RunComparison:
    """Compare the figures of the units that two backtests have in common: strategy, params and symbol.

    Raises:
        UnknownRunError: there is no such run.
    """
    with operations.reading() as connection:
        for run_id in (first, second):
            runs.load_run(connection, run_id)
        one, other = (comparing.load_figures(connection, run_id) for run_id in (first, second))
    shared = [UnitComparison(*key, figures, other[key]) for key, figures in one.items() if key in other]
    return RunComparison(shared, len(one) - len(shared), len(other) - len(shared))
