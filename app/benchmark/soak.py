"""A soak: does memory stay flat over a million jobs? The producer is a process of its own here."""

from __future__ import annotations

import contextlib
import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import psutil
from rich.table import Table

from app.benchmark.floors import Floor, Verdict, judge, load_floors
from app.benchmark.ground import Node, ground
from app.benchmark.machine import describe_machine, describe_versions
from app.benchmark.market import Market
from app.benchmark.measuring import BenchmarkError
from app.benchmark.results import FLEET
from app.benchmark.stage import SEED
from app.benchmark.tables import connect
from app.benchmark.watching import pss_mb
from app.benchmark.workloads import Workload
from app.processes import Children
from app.settings import Settings

#: Few symbols, so that every window is full when the warm-up is over: a window that fills is no leak.
SYMBOLS = 8
WIDTH = 50
#: Share of the jobs after which memory is compared: caches are full, statements are prepared.
WARM_SHARE = 0.2
#: Samples at either end whose median is compared.
END_SAMPLES = 3
SAMPLES = 60

#: Seconds between two looks how much has landed.
LOOK_EVERY_S = 0.25

_LANDED = "SELECT coalesce(sum(landed), 0) FROM dispatches"
_COLUMNS = ("timestamp", "symbol", "timeframe", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory at one moment."""

    elapsed_s: float
    landed: int
    memory_mb: Mapping[str, float]
    """PSS by process: ``producer``, ``worker``, ``slot-1``, ``slot-2``."""


@dataclass(frozen=True, slots=True)
class Soak:
    """What a soak found."""

    jobs: int
    samples: Sequence[Sample]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    floors: Mapping[str, Floor]

    @property
    def growth(self) -> dict[str, float]:
        """Memory at the end over memory after the warm-up, by process."""
        return build_growth(self.samples, round(self.jobs * WARM_SHARE))

    @property
    def ratios(self) -> dict[str, float]:
        """The growth of the process that grew most."""
        return {"soak_memory_growth": max(self.growth.values())} if self.growth else {}

    @property
    def verdicts(self) -> list[Verdict]:
        """The growth against its floor."""
        return judge(self.ratios, self.floors)

    @property
    def passed(self) -> bool:
        """Whether memory stayed flat."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)

    def document(self) -> dict[str, Any]:
        """Build the JSON document of ``candlefleet bench --soak JOBS --json``."""
        return {
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "jobs": self.jobs,
            "series": [
                {
                    "elapsed_s": round(sample.elapsed_s, 1),
                    "landed": sample.landed,
                    "memory_mb": {name: round(value, 2) for name, value in sample.memory_mb.items()},
                }
                for sample in self.samples
            ],
            "growth": {name: round(value, 4) for name, value in self.growth.items()},
            "ratios": {name: round(value, 4) for name, value in self.ratios.items()},
            "checks": [verdict.document() for verdict in self.verdicts],
        }

    def table(self) -> Table:
        """Build the table of the series."""
        names = list(self.samples[0].memory_mb) if self.samples else []
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("s", "landed", *(f"{name} MB" for name in names)):
            table.add_column(column, justify="right", no_wrap=True)
        for sample in self.samples:
            cells = (f"{sample.memory_mb[name]:.1f}" if name in sample.memory_mb else "-" for name in names)
            table.add_row(f"{sample.elapsed_s:.0f}", f"{sample.landed:,}", *cells)
        growth = self.growth
        table.add_row("", "end / warm", *(f"{growth[name]:.3f}" if name in growth else "-" for name in names))
        return table


def build_growth(samples: Sequence[Sample], warm_after: int) -> dict[str, float]:
    """Return for each process the median of its last samples over that of its first ones after the warm-up.

    Only samples of all processes count: when one ends, the pages that it shared count more for the others.

    Args:
        samples: in order.
        warm_after: jobs that belong to the warm-up.
    """
    names = sorted({name for sample in samples for name in sample.memory_mb})
    whole = [s.memory_mb for s in samples if s.landed >= warm_after and len(s.memory_mb) == len(names)]
    if len(whole) < 2:
        return {}
    return {name: _typical(whole[-END_SAMPLES:], name) / _typical(whole[:END_SAMPLES], name) for name in names}


def run_soak(settings: Settings, jobs: int, stop: Event, say: Callable[[str], None]) -> Soak:
    """Land so many jobs and watch the memory of the producer, the worker and its slots.

    Raises:
        BenchmarkError: it could not be carried to its end, or it was stopped.
    """
    workload, machine = Workload("light", WIDTH, SYMBOLS), describe_machine()
    closes = -(-jobs // (WIDTH * SYMBOLS))
    with ground(settings, [workload], stop) as prepared:
        feed = write_candles(prepared.settings.home / "soak.csv", workload, closes)
        with prepared.node(FLEET) as node, prepared.producer(node, f"replay:{feed}") as producer:
            samples = _watch(node, producer, closes * SYMBOLS * WIDTH, say)
        return Soak(jobs, samples, machine, describe_versions(prepared), load_floors())


def write_candles(path: Path, workload: Workload, closes: int) -> Path:
    """Write generated candles to a file that a producer can replay; return it."""
    market = Market(workload.symbols_of(FLEET, workload.symbols), SEED)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for close in market.take(closes * workload.symbols):
            for bar in close:
                opened = bar.open_time.isoformat()
                writer.writerow((opened, bar.symbol, bar.timeframe, bar.open, bar.high, bar.low, bar.close, bar.volume))
    return path


def _watch(node: Node, producer: Children, jobs: int, say: Callable[[str], None]) -> list[Sample]:
    samples: list[Sample] = []
    started = time.monotonic()
    with connect(node.settings.database_dsn, "bench") as connection:

        def landed() -> int:
            found = int(connection.execute(_LANDED).fetchone()[0])  # type: ignore[index]  # an aggregate is a row
            if found >= len(samples) * jobs / SAMPLES:
                samples.append(Sample(time.monotonic() - started, found, _memory(node, producer)))
                say(f"{found:,} jobs: " + ", ".join(f"{n} {mb:.1f} MB" for n, mb in samples[-1].memory_mb.items()))
            return found

        node.watcher.await_count(landed, jobs, LOOK_EVERY_S)
    return samples


def _memory(node: Node, producer: Children) -> dict[str, float]:
    found = {"worker": pss_mb([psutil.Process(node.pid)])}
    found |= {f"slot-{number}": pss_mb([slot]) for number, slot in enumerate(node.slots, 1)}
    code = producer.exit_code("producer")
    if code:
        raise BenchmarkError(f"the producer ended; the end of its log:\n{producer.tail('producer')}")
    if code is None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now
            found["producer"] = pss_mb([psutil.Process(producer.pid("producer"))])
    return found


def _typical(memory: Sequence[Mapping[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in memory)
