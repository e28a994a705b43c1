from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.decisions import ClosedBy, Heard, decide
from app.domain.jobs import OutcomeStatus

OK = OutcomeStatus.SUCCEEDED


def said(strategy_id: int, action: int, strength: float = 1.0) -> Heard:
    return Heard(strategy_id, OK, action, strength)


def failed(strategy_id: int, status: OutcomeStatus = OutcomeStatus.FAILED) -> Heard:
    return Heard(strategy_id, status, None, None)


def test_weights_decide():
    decision = decide({1: 3.0, 2: 1.0}, [said(1, 1, 0.5), said(2, -1, 1.0)], quorum=0.5, threshold=0.1)
    assert decision.score == pytest.approx((3 * 0.5 - 1) / 4)
    assert (decision.action, decision.weight_heard, decision.missing) == (1, 1.0, ())


def test_below_the_quorum_there_is_no_action_rather_than_flat():
    decision = decide({1: 1.0, 2: 2.0}, [said(1, 1), failed(2)], quorum=0.5, threshold=0.1)
    assert decision.action is None
    assert decision.weight_heard == pytest.approx(1 / 3)
    assert decision.score == 1.0


def test_nobody_succeeded():
    decision = decide({1: 1.0}, [failed(1, OutcomeStatus.TIMED_OUT)], quorum=0.0, threshold=0.0)
    assert (decision.action, decision.score, decision.weight_heard) == (None, 0.0, 0.0)


def test_a_small_score_is_flat_and_flat_votes_count_as_heard():
    decision = decide({1: 1.0, 2: 1.0}, [said(1, 1, 0.15), said(2, 0, 0.0)], quorum=1.0, threshold=0.1)
    assert (decision.action, decision.weight_heard) == (0, 1.0)
    assert decision.score == pytest.approx(0.075)


def test_who_is_missing_is_listed_and_strangers_are_ignored():
    decision = decide(
        {3: 1.0, 1: 1.0, 2: 1.0}, [said(2, 1), said(9, -1)], quorum=0.2, threshold=0.1, closed_by=ClosedBy.DEADLINE
    )
    assert decision.missing == (1, 3)
    assert decision.score == 1.0
    assert decision.closed_by is ClosedBy.DEADLINE


votes = st.tuples(
    st.floats(1e-3, 1e3),
    st.sampled_from([-1, 0, 1]),
    st.floats(0, 1),
    st.sampled_from(list(OutcomeStatus)),
)


@given(st.lists(votes, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_shows_and_the_arithmetic_is_exact(entries, random):
    weights = {number: entry[0] for number, entry in enumerate(entries)}
    heard = [
        Heard(number, entry[3], entry[1], entry[2]) if entry[3] is OK else failed(number, entry[3])
        for number, entry in enumerate(entries)
    ]
    first = decide(weights, heard, quorum=0.5, threshold=0.1)
    random.shuffle(heard)
    assert decide(weights, heard, quorum=0.5, threshold=0.1) == first
    spoken = [entry for entry in entries if entry[3] is OK]
    total = sum(Fraction(entry[0]) for entry in spoken)
    if spoken:
        exact = sum(Fraction(w) * a * Fraction(s) for w, a, s, _ in spoken) / total
        assert first.score == pytest.approx(float(exact), rel=1e-9, abs=1e-9)
    assert -1 <= first.score <= 1
    assert first.missing == ()
