"""Comparisons of evaluate runs: each answer with what live recorded of the same candle, or two runs unit by unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection

from app.domain.candles import Timeframe
from app.domain.runs import Method, RunState
from app.errors import WrongStateError
from app.operations import Operations
from app.storage import runs
from app.storage.comparing import show_params
from app.storage.evaluations import Row, SaidTwice, count_comparable, load_evaluated, load_said_twice
from app.storage.run_deletion import is_trimmed
from app.storage.runs import Run

#: Difference of two numbers that counts: what the gate takes two answers for equal by. Of stops and targets relative to
#: their size, of strengths and edges (percent of price) as it is.
TOLERANCE = 1e-7

#: The same of strengths and edges where a run reads only what its strategies remember, method `auto`: 1e-7 of a price
#: may be left of older candles, and a strength measures prices in ranges of candles, about a hundredth of a price.
#: Measured: 8e-7 at most, for the ten built-ins on 180 windows of walks.
TOLERANCE_AUTO = 1e-5

#: What a strategy says of a candle.
SAID = ("action", "strength", "edge_percent", "stop", "target")

#: What is compared of two units.
COMPARED = ("state", *SAID)

#: States of units that have an answer, or a reason why there is none.
_ANSWERED = ("succeeded", "failed", "stale", "short_history")


class AnswerPair(NamedTuple):
    """A unit that two evaluate runs have in common, with all that is stored of it."""

    strategy: str
    params: str
    symbol: str
    first: Row
    second: Row
    differing: tuple[str, ...]
    """Names of what was said differently."""

    @property
    def is_same_candle(self) -> bool:
        """Whether both runs looked at the same candle."""
        return bool(self.first["open_time"] == self.second["open_time"])

    @property
    def is_selected(self) -> tuple[bool, bool]:
        """Whether it was selected in the first, and in the second run."""
        return self.first["rank"] is not None, self.second["rank"] is not None


@dataclass(frozen=True, slots=True)
class EvaluationComparison:
    """What came of comparing two evaluate runs."""

    units: Sequence[AnswerPair]
    """That both have answered, in the order of the first."""
    only_first: int
    only_second: int

    @property
    def differing(self) -> list[AnswerPair]:
        """Units that were answered differently, or selected in one run and not in the other."""
        return [each for each in self.units if each.differing or len(set(each.is_selected)) > 1]

    def count(self) -> dict[str, int]:
        """Count what is the same and what is not."""
        return {
            "common": len(self.units),
            "only_first": self.only_first,
            "only_second": self.only_second,
            "other_candle": sum(not each.is_same_candle for each in self.units),
            "differing": sum(bool(each.differing) for each in self.units),
            "selected_only_first": sum(each.is_selected == (True, False) for each in self.units),
            "selected_only_second": sum(each.is_selected == (False, True) for each in self.units),
        }


def tolerance_of(*methods: Method) -> float:
    """Return which difference of strengths and edges counts between live, or a run, and runs of these methods."""
    return TOLERANCE if all(method is Method.WINDOWS for method in methods) else TOLERANCE_AUTO


def find_differing(
    one: Mapping[str, Any], other: Mapping[str, Any], names: Iterable[str], tolerance: float
) -> list[str]:
    """Return the names of values that differ; None equals None alone. Pure.

    Args:
        one: values.
        other: values.
        names: what to compare.
        tolerance: of strengths and edges.
    """
    return [name for name in names if not _are_equal(name, one[name], other[name], tolerance)]


def _are_equal(name: str, one: Any, other: Any, tolerance: float) -> bool:
    if not isinstance(one, float) or not isinstance(other, float):
        return bool(one == other)
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=0.0 if name in ("stop", "target") else tolerance)


def find_answers_that_differ(
    connection: Connection, run_id: int, timeframe: Timeframe, method: Method
) -> tuple[int, int, list[SaidTwice]]:
    """Compare each answer of an evaluate run with what live recorded.

    Returns:
        How many units were answered by a revision of the catalogue, how many of these live answered too, and those of
        them that differ.
    """
    said, tolerance = list(load_said_twice(connection, run_id, timeframe)), tolerance_of(method)
    return (
        count_comparable(connection, run_id),
        len(said),
        [each for each in said if differing_columns(each, tolerance)],
    )


def differing_columns(said: SaidTwice, tolerance: float) -> list[str]:
    """Return the names of what live and a run said differently; pure."""
    values = said._asdict()
    live, run = ({name: values[f"{who}_{name}"] for name in SAID} for who in ("live", "run"))
    return find_differing(live, run, SAID, tolerance)


def compare_evaluations(operations: Operations, first: int, second: int) -> EvaluationComparison:
    """Compare what two evaluate runs say of the units they have in common: strategy, params and symbol.

    Raises:
        UnknownRunError: there is no such run.
        WrongStateError: one of them is not complete, or its answers were deleted.
    """
    with operations.reading() as connection:
        tolerance = tolerance_of(*[_require_answers(connection, run_id).spec.method for run_id in (first, second)])
        one, other = (_load_units(connection, run_id) for run_id in (first, second))
    shared = [
        AnswerPair(*key, row, other[key], tuple(find_differing(row, other[key], COMPARED, tolerance)))
        for key, row in one.items()
        if key in other
    ]
    return EvaluationComparison(shared, len(one) - len(shared), len(other) - len(shared))


def _require_answers(connection: Connection, run_id: int) -> Run:
    run = runs.load_run(connection, run_id)
    if run.state is not RunState.COMPLETE:
        raise WrongStateError(f"run {run_id} is {run.state}: only a run that is complete has a selection to compare")
    if is_trimmed(connection, run_id):
        raise WrongStateError(f"run {run_id}: its answers were deleted with its details: start it anew to compare it")
    return run


def _load_units(connection: Connection, run_id: int) -> dict[tuple[str, str, str], Row]:
    rows = [row for row in load_evaluated(connection, run_id) if row["state"] in _ANSWERED]
    return {(row["strategy"], show_params(row["params"]), row["symbol"]): row for row in rows}
