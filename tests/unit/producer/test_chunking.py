from hypothesis import given
from hypothesis import strategies as st

from app.domain.jobs import JobKey
from app.producer.chunking import Budget, Candidate, plan_chunks, split_evenly

lanes = st.lists(st.integers(1, 10_000), unique=True, max_size=600).map(lambda ids: [JobKey(i, 1) for i in ids])
costs_ms = st.one_of(st.floats(0.001, 0.05), st.floats(0.001, 20.0))
candidates = st.lists(
    st.tuples(st.integers(1, 10_000), costs_ms, st.sampled_from([None, None, None, "new", "slow"])),
    unique_by=lambda job: job[0],
    max_size=400,
).map(lambda jobs: [Candidate(JobKey(n, 1), cost_ms, alone, alone == "slow") for n, cost_ms, alone in jobs])
budgets = st.builds(Budget, st.floats(0.5, 50.0), st.integers(1, 256), st.integers(1, 64), st.floats(0.1, 5.0))


@given(candidates, budgets)
def test_no_job_is_lost_or_repeated_and_the_order_of_candidates_changes_only_the_order(jobs, budget):
    planned = plan_chunks(jobs, budget)
    assert sorted(key for chunk in planned for key in chunk.keys) == sorted(each.key for each in jobs)
    assert plan_chunks(jobs, budget) == planned
    again = plan_chunks(jobs[::-1], budget)
    assert {frozenset(chunk.keys) for chunk in again} == {frozenset(chunk.keys) for chunk in planned}


@given(candidates, budgets)
def test_who_must_travel_alone_does_and_the_others_keep_within_the_budget(jobs, budget):
    known = {each.key: each for each in jobs}
    for chunk in plan_chunks(jobs, budget):
        members = [known[key] for key in chunk.keys]
        assert chunk.is_alone == any(each.alone and not each.is_slow for each in members)
        assert len(members) <= budget.most
        is_shared = all(each.alone is None for each in members)
        assert len(members) == 1 or (is_shared and sum(m.cost_ms for m in members) <= budget.work_ms + 1e-9)


@given(candidates, budgets)
def test_no_slot_stays_idle_while_there_is_work_worth_a_message(jobs, budget):
    shared = [each for each in jobs if each.alone is None]
    known = {each.key: each for each in jobs}
    chunks = [chunk for chunk in plan_chunks(jobs, budget) if known[chunk.keys[0]].alone is None]
    pieces = int(sum(each.cost_ms for each in shared) / budget.least_ms)
    assert len(chunks) >= min(budget.slots, pieces, len(shared))


def test_cheap_jobs_share_one_chunk_and_work_is_shared_out_evenly():
    light = [Candidate(JobKey(number, 1), 0.012) for number in range(50)]
    assert [len(chunk.keys) for chunk in plan_chunks(light, Budget(slots=2))] == [50]
    heavier = [Candidate(JobKey(number, 1), 0.2) for number in range(50)]
    assert [len(chunk.keys) for chunk in plan_chunks(heavier, Budget(slots=4))] == [13, 13, 12, 12]
    assert [round(chunk.cost_ms, 6) for chunk in plan_chunks(heavier, Budget(slots=1))] == [10.0]


@given(lanes, st.integers(1, 256))
def test_split_evenly_loses_nothing_and_its_sizes_are_even(jobs, most):
    chunks = split_evenly(jobs, most)
    assert [job for chunk in chunks for job in chunk] == jobs
    sizes = [len(chunk) for chunk in chunks]
    assert all(0 < size <= most for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(chunks) == -(-len(jobs) // most)
