from hypothesis import given
from hypothesis import strategies as st

from app.domain.jobs import JobKey
from app.producer.chunking import plan_chunks

lanes = st.lists(st.integers(1, 10_000), unique=True, max_size=600).map(lambda ids: [JobKey(i, 1) for i in ids])


@given(lanes, st.integers(1, 256))
def test_no_job_is_lost_repeated_or_reordered_and_sizes_are_even(jobs, most):
    chunks = plan_chunks(jobs, most)
    assert [job for chunk in chunks for job in chunk] == jobs
    sizes = [len(chunk) for chunk in chunks]
    assert all(0 < size <= most for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(chunks) == -(-len(jobs) // most)


def test_chunking_off_sends_every_job_alone():
    jobs = [JobKey(number, 1) for number in range(3)]
    assert plan_chunks(jobs, 1) == ((jobs[0],), (jobs[1],), (jobs[2],))
