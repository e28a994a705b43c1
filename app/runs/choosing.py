"""Choosing: the selection of a whole evaluate run, made from arrays. Pure.

Most candidates are flat, or their edge is below the minimum. `select` would turn each of them away by itself, whatever
the others are; so that is done for all of them at once, and only what is left becomes candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.domain.selection import Candidate, Held, Reason, Selected, Selection, SelectionRules, select
from app.runs.answers import Answers, UnitStatus

#: Numbers of units.
Units = npt.NDArray[np.intp]


class Author(NamedTuple):
    """Who made the answers of a variant."""

    strategy: str
    category: str


class Refusal(NamedTuple):
    """A unit that lost to others, or to a limit."""

    unit: int
    reason: Reason
    detail: str


class Choice(NamedTuple):
    """What became of every unit."""

    selection: Selection
    """Of those that could be selected."""
    selected: Sequence[tuple[int, Selected]]
    """With their units, best edge first."""
    turned_away: Mapping[Reason, Units]
    """Units whose own answer rules them out, by reason."""
    refused: Sequence[Refusal]
    """Units that could have been selected."""

    @property
    def counts(self) -> dict[str, int]:
        """Rejected units by reason, the most frequent first."""
        counts = {reason.value: len(units) for reason, units in self.turned_away.items() if len(units)}
        for each in self.refused:
            counts[each.reason.value] = counts.get(each.reason.value, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


def choose(
    answers: Answers, symbols: Sequence[str], authors: Sequence[Author], held: Iterable[Held], rules: SelectionRules
) -> Choice:
    """Select positions from all answers of a run. The same as `select` of all of them, in a fraction of the time.

    Args:
        answers: (markets * variants,) the variants of a market follow each other.
        symbols: of the markets.
        authors: of the variants.
        held: positions that there are.
        rules: to select by.
    """
    turned_away = _turn_away(answers, rules)
    rest = np.ones(len(answers), bool)
    for units in turned_away.values():
        rest[units] = False
    candidates = dict(_candidates(answers, np.flatnonzero(rest), symbols, authors))
    selection = select(candidates.values(), held, rules)
    unit_of = {id(candidate): unit for unit, candidate in candidates.items()}  # equal ones may differ in their params
    selected = [(unit_of[id(each.candidate)], each) for each in selection.selected]
    refused = [Refusal(unit_of[id(each.candidate)], each.reason, each.detail) for each in selection.rejected]
    return Choice(selection, selected, turned_away, refused)


def _turn_away(answers: Answers, rules: SelectionRules) -> dict[Reason, Units]:
    edge, status = answers["edge"], answers["status"]
    tests = {
        Reason.FAILED: status == UnitStatus.FAILED,
        Reason.STALE: status == UnitStatus.STALE,
        Reason.SHORT_HISTORY: status == UnitStatus.SHORT_HISTORY,
        Reason.FLAT: answers["action"] == 0,
        Reason.NO_EDGE: ~np.isfinite(edge),
        Reason.EDGE_BELOW_MINIMUM: edge < rules.min_edge_percent,
    }
    left, turned = np.ones(len(answers), bool), {}
    for reason, is_so in tests.items():
        turned[reason] = np.flatnonzero(left & is_so)
        left &= ~is_so
    return turned


def _candidates(
    answers: Answers, units: Units, symbols: Sequence[str], authors: Sequence[Author]
) -> Iterator[tuple[int, Candidate]]:
    columns = (answers[name][units].tolist() for name in ("action", "edge", "strength", "price", "stop", "target"))
    for unit, action, edge, strength, price, stop, target in zip(units.tolist(), *columns, strict=True):
        market, variant = divmod(unit, len(authors))
        strategy, category = authors[variant]
        levels = {"stop": _stated(stop), "target": _stated(target)}
        yield unit, Candidate(symbols[market], strategy, category, action, edge, strength, price, **levels)


def _stated(price: float) -> float | None:
    return None if math.isnan(price) else price
