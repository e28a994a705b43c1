"""Closing, deafness and backoff, as pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.domain.decisions import ClosedBy, DecisionRules, Heard
from app.domain.jobs import OutcomeStatus
from app.maintenance.closer import due_decision
from app.maintenance.runner import BACKOFF_CAP_S, backoff_s
from app.maintenance.stalls import is_answered, seems_deaf, wants_canary
from app.storage.closing import Closable
from app.storage.watch import WatchedNode

NOW = datetime(2024, 1, 1, tzinfo=UTC)
CANARY = timedelta(seconds=10)

outcomes = st.sampled_from(list(OutcomeStatus))


@given(
    weights=st.dictionaries(st.integers(1, 50), st.floats(0.1, 10), min_size=1, max_size=20),
    quorum=st.floats(0, 1),
    is_late=st.booleans(),
    data=st.data(),
)
def test_a_dispatch_closes_at_its_deadline_or_with_its_quorum_and_lists_who_is_missing(
    weights: dict[int, float], quorum: float, is_late: bool, data: st.DataObject
) -> None:
    landed = data.draw(st.dictionaries(st.sampled_from(sorted(weights)), outcomes))
    heard = [Heard(number, status, 1, 1.0) for number, status in landed.items()]
    deadline = NOW if is_late else NOW + timedelta(seconds=1)
    decision = due_decision(Closable(1, weights, NOW, deadline), heard, NOW, DecisionRules(quorum=quorum))
    if len(landed) == len(weights):
        assert decision is None
    elif is_late:
        assert decision is not None
        assert decision.closed_by is ClosedBy.DEADLINE
        assert set(decision.missing) == weights.keys() - landed.keys()
    elif decision is not None:
        assert decision.closed_by is ClosedBy.QUORUM
        assert decision.weight_heard >= quorum
        assert decision.action is not None
    else:
        spoken = sum(weights[n] for n, status in landed.items() if status is OutcomeStatus.SUCCEEDED)
        assert not spoken or spoken / sum(weights.values()) < quorum + 1e-9


def node(busy: int, held: int, sent_s: float | None, seen_s: float | None) -> WatchedNode:
    def ago(seconds: float | None) -> datetime | None:
        return None if seconds is None else NOW - timedelta(seconds=seconds)

    return WatchedNode("a", 2, busy, tuple(f"1.{n}" for n in range(held)), (), ago(sent_s), ago(seen_s), NOW)


moments = st.none() | st.floats(0, 60)


@given(st.integers(0, 3), st.integers(0, 6), moments, moments)
def test_a_node_is_deaf_only_when_it_could_have_answered_long_ago(
    busy: int, held: int, sent: float | None, seen: float | None
) -> None:
    each = node(busy, held, sent, seen)
    if seems_deaf(each, NOW, CANARY):
        assert busy < 2
        assert held <= busy
        assert sent is not None and sent >= 10
        assert seen is None or seen > sent
        assert not wants_canary(each, NOW, CANARY), "one canary waits at most"


def test_canaries_follow_each_other_at_the_agreed_pace() -> None:
    assert wants_canary(node(0, 0, None, None), NOW, CANARY)
    assert not wants_canary(node(0, 0, 9, 8), NOW, CANARY)
    assert wants_canary(node(0, 0, 10, 9), NOW, CANARY)
    assert not wants_canary(node(0, 0, 10, 11), NOW, CANARY)
    assert not is_answered(node(0, 0, 10, 11))


@given(st.integers(1, 10_000))
def test_the_backoff_grows_to_its_cap(failures: int) -> None:
    assert 0 < backoff_s(failures) <= backoff_s(failures + 1) <= BACKOFF_CAP_S
