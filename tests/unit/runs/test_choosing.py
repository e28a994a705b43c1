"""Choosing from arrays: the same selection as of every candidate one by one, and a reason for every other unit."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.domain.jobs import Signal
from app.domain.selection import Candidate, Held, Reason, SelectionRules, select
from app.runs.answers import ANSWER, Answers, Cell, UnitStatus, build_cell, build_empty_cell
from app.runs.choosing import Author, choose

AUTHORS = (Author("cross", "trend"), Author("bands", "reversion"), Author("bands", "reversion"))
RULES = SelectionRules(min_edge_percent=10.0)

#: Few values, so that edges are equal, categories full and limits reached.
signals = st.builds(
    Signal,
    action=st.sampled_from([-1, 0, 1]),
    strength=st.sampled_from([0.25, 1.0]),
    edge=st.sampled_from([None, -3.0, 9.99, 10.0, 20.0]),
    stop=st.sampled_from([None, 97.0, 103.0]),
    target=st.sampled_from([None, 120.0]),
)
held = st.lists(
    st.builds(Held, st.sampled_from(["M0", "X"]), st.sampled_from(["trend", "other"]), st.just(30.0), st.just(2.0))
)


def build(cells: list[Cell]) -> Answers:
    return np.array(cells, ANSWER)


@given(st.integers(0, 8).flatmap(lambda n: st.lists(signals, min_size=3 * n, max_size=3 * n)), held)
def test_it_is_the_selection_of_all_candidates(said: list[Signal], positions: list[Held]) -> None:
    symbols = [f"M{number}" for number in range(len(said) // 3)]
    candidates = [
        Candidate(symbols[unit // 3], *AUTHORS[unit % 3], s.action, s.edge, s.strength, 100.0, s.stop, s.target)
        for unit, s in enumerate(said)
    ]
    choice = choose(build([build_cell(each, 0, 100.0) for each in said]), symbols, AUTHORS, positions, RULES)
    expected = select(candidates, positions, RULES)
    assert [each for _, each in choice.selected] == list(expected.selected)
    assert [candidates[unit] for unit, _ in choice.selected] == [each.candidate for each in expected.selected]
    reasons = {unit: reason for reason, units in choice.turned_away.items() for unit in units.tolist()}
    reasons |= {each.unit: each.reason for each in choice.refused}
    assert len(reasons) + len(choice.selected) == len(said)
    found = Counter((candidates[unit], reason) for unit, reason in reasons.items())
    assert found == Counter((each.candidate, each.reason) for each in expected.rejected)
    assert sum(choice.counts.values()) == len(reasons)


def test_units_without_an_answer_are_rejected_for_that() -> None:
    statuses = (UnitStatus.FAILED, UnitStatus.STALE, UnitStatus.SHORT_HISTORY)
    choice = choose(build([build_empty_cell(status) for status in statuses]), ["M0"], AUTHORS, [], RULES)
    turned_away = {reason: units.tolist() for reason, units in choice.turned_away.items() if len(units)}
    assert turned_away == {Reason.FAILED: [0], Reason.STALE: [1], Reason.SHORT_HISTORY: [2]}
    assert choice.counts == {"failed": 1, "stale": 1, "short_history": 1}


def test_what_is_not_stated_stays_so() -> None:
    cell = build([build_cell(Signal(action=1, strength=0.5), 7, 2.0)])[0]
    assert (cell["opened_ms"], cell["price"], cell["action"], cell["strength"]) == (7, 2.0, 1, 0.5)
    assert all(math.isnan(cell[name]) for name in ("edge", "stop", "target"))
