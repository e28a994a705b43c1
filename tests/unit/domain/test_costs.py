import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.costs import FARTHEST, LEAST_MS, Cost, CostBook, Sample, in_steps

times_ms = st.floats(0.001, 10_000.0)


def sample(jobs: int = 50, ms: float = 1.0, revision: int = 1, failed: int = 0, stopped: int = 0) -> Sample:
    return Sample(7, revision, jobs, ms, ms, ms, failed, stopped)


def known(book: CostBook, revision: int = 1) -> Cost:
    cost = book.of(7, revision)
    assert cost is not None
    return cost


@given(st.lists(st.tuples(st.integers(1, 500), times_ms), min_size=1, max_size=20))
def test_an_estimate_stays_among_what_was_seen_and_no_look_moves_it_far(looks):
    book = CostBook()
    before = None
    for jobs, ms in looks:
        book.note([sample(jobs, ms)])
        now = known(book).median_ms
        seen = [each for _, each in looks]
        assert min(seen) * (1 - 1e-9) <= now <= max(seen) * (1 + 1e-9)
        if before is not None:
            assert before / FARTHEST <= now <= max(before, LEAST_MS) * FARTHEST
        before = now


def test_an_estimate_follows_a_lasting_change():
    book = CostBook()
    book.note([sample(ms=0.01)])
    for _ in range(20):
        book.note([sample(ms=5.0)])
    assert known(book).median_ms == pytest.approx(5.0, rel=0.01)


def test_a_strategy_that_failed_lately_is_failing_until_it_works_again():
    book = CostBook()
    book.note([sample(jobs=64), sample(jobs=64, failed=10)])
    assert known(book).is_failing
    for _ in range(5):
        book.note([sample(jobs=64)])
    assert not known(book).is_failing
    book.note([sample(jobs=64, stopped=1)])
    assert known(book).failing == 1.0, "one job stopped by force is enough"


def test_a_new_revision_starts_afresh_and_an_old_one_changes_nothing():
    book = CostBook()
    book.note([sample(ms=9.0), sample(ms=1.0, revision=2), sample(ms=9.0)])
    assert (known(book, 2).median_ms, known(book, 2).jobs) == (1.0, 50)
    assert book.of(7, 1) is None


@given(st.floats(1e-3, 1e6))
def test_steps_are_never_below_and_at_most_a_root_of_two_above(value):
    assert value * (1 - 1e-12) <= in_steps(value) <= value * math.sqrt(2) * (1 + 1e-12)
