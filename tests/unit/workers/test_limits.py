"""Memory of one job: what is refused, what is said of it, and that nobody else feels it."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest

from app.domain.jobs import Chunk, JobKey, OutcomeStatus
from app.domain.strategies import Limits, Priority
from app.strategies.bars import Bars
from app.strategies.sdk import Context, Signal, Strategy
from tests.building import candle, walk
from workers.running import Ran, run_jobs
from workers.runtime import memory
from workers.runtime.limits import clock
from workers.runtime.memory import held_mb, resident_kib, use_one_arena
from workers.runtime.strategies import Runtime

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory: see ENFORCES_MEMORY"),
    # the soft limit of a job and pytest-timeout's own would use the same timer
    pytest.mark.timeout(60, method="thread"),
]
MIB = 2**20
LIMIT_MB = 64


class Takes(Strategy):
    """Takes memory in pieces of a megabyte, and gives it back unless told to keep it."""

    class Params(Strategy.Params):
        mb: int
        keep: bool = False

    params: Params

    def on_candle(self, context: Context) -> Signal:
        taken: list[bytes] = []
        for _ in range(self.params.mb):
            taken.append(b"x" * MIB)  # noqa: PERF401 - what a comprehension gathers is in no variable yet
        self.kept = taken if self.params.keep else []
        return Signal(action=1)


class WantsAnArray(Strategy):
    """Asks numpy for a gigabyte, and shows what is left of the error to nobody."""

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=int(np.zeros(2**27)[0]))


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    clock.install()
    use_one_arena()
    yield
    signal.signal(signal.SIGALRM, before)


def takes(mb: int, *, keep: bool = False) -> Strategy:
    return Takes(Takes.Params(mb=mb, keep=keep))


def run(*strategies: Strategy) -> list[Ran]:
    """Run strategies as the jobs of one chunk."""
    own = Limits(memory_mb=LIMIT_MB, retries=0)
    jobs = tuple(JobKey(number, 1) for number in range(len(strategies)))
    now = datetime.now(UTC)
    chunk = Chunk(
        dispatch_id=1,
        candle=candle(),
        priority=Priority.NORMAL,
        correlation_id="c",
        jobs=jobs,
        created_at=now,
        deadline=now,
        expires_at=now,
        catalogue_version=1,
    )
    runtimes = [Runtime(f"s{number}", own, strategy) for number, strategy in enumerate(strategies)]
    bars, ran = Bars.from_candles(walk("A-B", 3)), list[Ran]()
    while len(ran) < len(jobs):  # a job that takes long ends its turn
        ran += run_jobs(chunk, runtimes, bars, first=len(ran))
    return ran


def in_force() -> int:
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def test_a_job_that_takes_too_much_fails_with_what_it_had_and_its_neighbours_do_not():
    before = in_force()
    good, greedy, after = run(takes(1), takes(10_000), takes(1))
    assert (good.status, after.status) == (OutcomeStatus.SUCCEEDED,) * 2
    assert greedy.status is OutcomeStatus.FAILED
    assert type(greedy.error).__name__ == "MemoryLimitError"
    pattern = r"expected at most 64 MiB more than .* it held (\d+) MiB: .* raise limits.memory_mb"
    told = re.match(pattern, str(greedy.error))
    assert told is not None
    assert LIMIT_MB // 2 < int(told[1]) <= LIMIT_MB
    assert in_force() == before


def test_what_numpy_was_refused_is_told():
    (ran,) = run(WantsAnArray())
    assert "held 0 MiB" in str(ran.error) and "Unable to allocate 1.00 GiB" in str(ran.error)


def test_the_limit_counts_from_what_neighbours_left():
    keeper, *others = takes(48, keep=True), takes(48), takes(48)
    assert [ran.status for ran in run(keeper, *others)] == [OutcomeStatus.SUCCEEDED] * 3
    assert len(keeper.kept) == 48  # type: ignore[attr-defined]


def test_what_a_failed_job_held_is_given_back():
    before = resident_kib()
    run(*(takes(10_000) for _ in range(4)))
    assert resident_kib() - before < 2 * LIMIT_MB * 1024


def test_a_child_reads_its_own_size():
    before = resident_kib()
    hoard = b"x" * (256 * MIB)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        del hoard
        os.write(writing, str(resident_kib()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 100)) < before + 128 * 1024 < resident_kib()
    os.close(reading)
    os.close(writing)
    assert hoard


def test_what_forked_processes_share_is_counted_in_proportion():
    hoard = b"x" * (256 * MIB)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, f"{held_mb()} {resident_kib() // 1024}".encode())
        os._exit(len(hoard) % 2)
    held, resident = map(int, os.read(reading, 100).split())
    os.waitpid(child, 0)
    assert 128 <= held < resident - 100
    os.close(reading)
    os.close(writing)


def test_what_is_held_is_looked_at_once_a_second(monkeypatch):
    moments = iter((10.0, 10.5, 11.0, 11.1))
    looks = iter((100 * 1024, 200 * 1024))
    monkeypatch.setattr(memory, "_held", None)
    monkeypatch.setattr("workers.runtime.memory.time.monotonic", lambda: next(moments))
    monkeypatch.setattr(memory, "_proportional_kib", lambda: next(looks))
    assert [held_mb() for _ in range(4)] == [100, 100, 100, 200]
