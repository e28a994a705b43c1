from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.breakers import Breaker, BreakerRules, BreakerState, is_candle_to_blame, judge
from app.domain.jobs import OutcomeStatus

NOW = datetime(2024, 1, 1, tzinfo=UTC)
RULES = BreakerRules(failures=3, open_for=timedelta(seconds=60), cap=timedelta(seconds=200))
OK, FAILED, SKIPPED = OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED, OutcomeStatus.SKIPPED


def failing(times: int) -> Breaker:
    breaker = Breaker(strategy_id=1)
    for _ in range(times):
        breaker = breaker.fail(NOW, RULES)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row():
    assert failing(2).state is BreakerState.CLOSED
    opened = failing(3)
    assert (opened.state, opened.trips, opened.open_until) == (BreakerState.OPEN, 1, NOW + timedelta(seconds=60))


def test_a_success_in_between_starts_the_count_again():
    assert failing(2).succeed().fail(NOW, RULES).failures == 1


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_the_cap():
    breaker, pauses = failing(3), []
    for _ in range(4):
        assert breaker.open_until is not None
        pauses.append((breaker.open_until - NOW).total_seconds())
        breaker = breaker.probe()
        assert breaker.state is BreakerState.HALF_OPEN
        breaker = breaker.fail(NOW, RULES)
    assert pauses == [60, 120, 200, 200]


def test_a_probe_that_succeeds_closes_it():
    assert failing(3).probe().succeed() == Breaker(strategy_id=1)


def test_failures_of_jobs_sent_before_it_opened_do_not_prolong_it():
    opened = failing(3)
    assert opened.fail(NOW + timedelta(seconds=9), RULES).open_until == opened.open_until


def test_a_dead_slot_opens_it_at_once_and_is_remembered_over_successes():
    crashed = Breaker(strategy_id=1).crash(NOW, RULES)
    assert (crashed.state, crashed.crashes) == (BreakerState.OPEN, 1)
    assert crashed.succeed().crashes == 1


def test_counts_never_overflow():
    assert RULES.pause(10_000) == RULES.cap


@pytest.mark.parametrize(
    ("statuses", "blamed"),
    [
        ([FAILED, FAILED, OK], True),
        ([FAILED, OK, OK], False),
        ([FAILED, FAILED], False),
        ([FAILED, FAILED, OK, OK], False),
        ([FAILED, FAILED, SKIPPED, SKIPPED], False),
        ([FAILED, FAILED, OutcomeStatus.TIMED_OUT, SKIPPED], True),
        ([], False),
    ],
)
def test_a_bad_candle_is_told_from_a_bad_strategy(statuses, blamed):
    assert is_candle_to_blame(statuses) is blamed


def test_a_bad_candle_moves_no_breaker():
    assert judge({}, [(1, FAILED), (2, FAILED), (3, OK)], NOW, RULES) == []


def test_a_bad_strategy_moves_its_own_breaker_only():
    known = {2: failing(2).model_copy(update={"strategy_id": 2})}
    changed = judge(known, [(1, FAILED), (2, OK), (3, OK), (4, OK)], NOW, RULES)
    assert changed == [Breaker(strategy_id=1, failures=1), Breaker(strategy_id=2)]


def test_a_probe_that_never_ran_lets_another_go():
    half_open = failing(3).probe()
    (changed,) = judge({1: half_open}, [(1, OutcomeStatus.EXPIRED), (2, OK)], NOW, RULES)
    assert (changed.state, changed.open_until) == (BreakerState.OPEN, NOW)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from(list(OutcomeStatus))), unique_by=lambda e: e[0], max_size=9)
)
def test_only_what_changed_is_returned_and_only_of_who_was_asked(ended):
    changed = judge({}, ended, NOW, RULES)
    assert {b.strategy_id for b in changed} <= {
        number for number, status in ended if status in (FAILED, OutcomeStatus.TIMED_OUT)
    }
    assert all(b != Breaker(strategy_id=b.strategy_id) for b in changed)
