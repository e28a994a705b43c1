"""Run a benchmark: the parts of a plan, one after another, on servers of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event

from app.benchmark.floors import load_floors
from app.benchmark.ground import ground
from app.benchmark.machine import describe_machine, describe_versions
from app.benchmark.parts import MEASURE
from app.benchmark.plan import Plan
from app.benchmark.report import Report
from app.benchmark.stage import Stage
from app.settings import Settings


def run_benchmark(settings: Settings, plan: Plan, stop: Event, say: Callable[[str], None]) -> Report:
    """Measure what the plan says.

    Args:
        settings: what is set there for dispatch and workers is what is measured.
        plan: what to measure.
        stop: ends it early.
        say: told what was found, as it is found.

    Raises:
        BenchmarkError: a measurement could not be carried to its end, or it was stopped.
        ConfigurationError: the floors cannot be read.
    """
    started, floors, machine = time.monotonic(), load_floors(), describe_machine()
    with ground(settings, plan.workloads(), stop) as prepared, Stage(prepared, plan, say) as stage:
        versions = describe_versions(prepared)
        for part in plan.parts:
            began = time.monotonic()
            MEASURE[part](stage)
            say(f"{part}: measured in {time.monotonic() - began:.0f} s")
        return Report(plan, stage.results, machine, versions, time.monotonic() - started, floors)
