"""The benchmark, as small as it can be, on real servers and processes: what it reports, never how fast it was."""

from __future__ import annotations

import json
import subprocess
import sys
from threading import Event

import pytest

from app.benchmark.measuring import BenchmarkError
from app.benchmark.plan import Plan
from app.benchmark.report import Report
from app.benchmark.results import (
    CANDLES_PER_S,
    CELERY,
    FLEET,
    JOBS_PER_S,
    LIMIT,
    P50_MS,
    P95_MS,
    SEQUENTIAL,
    UNCHUNKED,
    UTILISATION,
)
from app.benchmark.run import run_benchmark
from app.settings import Settings
from tests.building import REPOSITORY

#: A few jobs of everything that has a process or a measure of its own.
TINY = Plan(
    rounds=2,
    seconds=0.01,
    light_widths=(3,),
    heavy_widths=(3,),
    burst_symbols=4,
    burst_rounds=1,
    paced_candles=3,
    parts=("light", "burst", "paced", "slots", "switch", "runs"),
    switches=2,
    run_candles=500,
    window_candles=50,
)


@pytest.fixture
def report() -> Report:
    said: list[str] = []
    found = run_benchmark(Settings(), TINY, Event(), said.append)
    assert said
    return found


@pytest.mark.timeout(600)
def test_every_contender_is_measured_in_every_round(report: Report):
    found = {measurement.key: measurement for measurement in report.results}
    for contender in (FLEET, UNCHUNKED, CELERY, LIMIT):
        assert len(found["light-3", contender, JOBS_PER_S].values) == 2  # type: ignore[index]
    for contender in (FLEET, UNCHUNKED, CELERY):
        assert len(found["light-3", contender, P50_MS].values) == 2  # type: ignore[index]
    for contender in (FLEET, SEQUENTIAL):
        p50, p95 = (found["slots-3", contender, measure] for measure in (P50_MS, P95_MS))  # type: ignore[index]
        assert 10.0 < p50.median <= p95.median
    for workload in ("runs-auto", "runs-windows"):
        assert len(found[workload, SEQUENTIAL, CANDLES_PER_S].values) == 2  # type: ignore[index]
    # a burst this small may be over before any slot was seen at work
    assert all(v > 0 or key[2] == UTILISATION for key, measured in found.items() for v in measured.values)
    document = json.loads(json.dumps(report.document(), allow_nan=False))
    assert {"three_slots_vs_sequential", "burst_memory_growth", "runs_vs_plain"} <= set(document["ratios"])
    assert document["versions"]["postgres"] and document["versions"]["redis-server"] and document["machine"]["cores"]
    assert {check["ratio"] for check in document["checks"]} == set(document["ratios"])


@pytest.mark.timeout(600)
def test_a_soak_prints_the_series_of_the_memory_of_producer_and_slots(clean_environment: dict[str, str]):
    answer = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "bench", "--soak", "2000", "--json"],
        cwd=REPOSITORY,
        env=clean_environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert document["series"][-1]["landed"] == document["jobs"] == 2000
    assert {"worker", "slot-1", "slot-2"} <= set(document["series"][0]["memory_mb"])
    assert any("producer" in sample["memory_mb"] for sample in document["series"])


def test_a_benchmark_that_is_stopped_says_so():
    stop = Event()
    stop.set()

    with pytest.raises(BenchmarkError, match="stopped"):
        run_benchmark(Settings(), TINY, stop, lambda _: None)


def refused(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", "bench", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_an_unknown_part_is_refused_before_anything_starts(clean_environment: dict[str, str]):
    answer = refused(["--only", "lihgt"], clean_environment)

    assert answer.returncode == 2
    assert "did you mean 'light'" in answer.stderr
