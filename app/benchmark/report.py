"""The report of a benchmark: one JSON document, and tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from app.benchmark.floors import Floor, Verdict, judge
from app.benchmark.plan import Plan
from app.benchmark.results import (
    CANDLES_PER_S,
    CELERY,
    END_MB,
    FLEET,
    IDLE,
    JOBS_PER_S,
    LIGHT_P95_MS,
    LIMIT,
    P50_MS,
    P95_MS,
    QUIET,
    SEQUENTIAL,
    SIGNALS,
    START_MB,
    UNCHUNKED,
    UTILISATION,
    Results,
    build_ratios,
)

#: How a measure is called in a table.
TITLES = {
    JOBS_PER_S: "landed outcomes/s",
    P50_MS: "one candle to its decision, p50 ms",
    P95_MS: "one candle to its decision, p95 ms",
    LIGHT_P95_MS: "light jobs to landed, p95 ms",
    UTILISATION: "busy slots while messages wait",
    START_MB: "node memory before, MB",
    END_MB: "node memory after, MB",
    CANDLES_PER_S: "candles of batch runs evaluated/s",
}
_CONTENDERS = (FLEET, UNCHUNKED, CELERY, LIMIT, SEQUENTIAL, SIGNALS, QUIET, IDLE)


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found."""

    plan: Plan
    results: Results
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    elapsed_s: float
    floors: Mapping[str, Floor]

    @property
    def ratios(self) -> dict[str, float]:
        """The ratios of the medians."""
        return build_ratios(self.results)

    @property
    def verdicts(self) -> list[Verdict]:
        """Each ratio against its floor."""
        return judge(self.ratios, self.floors)

    @property
    def passed(self) -> bool:
        """Whether something was held against a floor, and everything met it."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)

    def document(self) -> dict[str, Any]:
        """Build the JSON document of ``candlefleet bench --json``."""
        return {
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "plan": asdict(self.plan),
            "elapsed_s": round(self.elapsed_s, 1),
            "measurements": [measurement.document() for measurement in self.results],
            "ratios": {name: round(value, 4) for name, value in self.ratios.items()},
            "checks": [verdict.document() for verdict in self.verdicts],
        }

    def tables(self) -> Iterator[Table]:
        """Yield a table of the medians, and one of the ratios."""
        yield _measurements(self.results)
        yield build_ratio_table(self.verdicts)


def build_ratio_table(verdicts: Sequence[Verdict]) -> Table:
    """Build the table of the ratios against their floors and targets."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("ratio", "found", "floor", "target", "verdict"):
        table.add_column(column, justify="left" if column in ("ratio", "verdict") else "right", no_wrap=True)
    for verdict in verdicts:
        floor = verdict.floor
        table.add_row(floor.name, f"{verdict.value:.3g}", floor.describe(), f"{floor.target:.3g}", _word(verdict))
    return table


def _word(verdict: Verdict) -> Text:
    if not verdict.passed:
        return Text("WORSE THAN THE FLOOR", "bold red")
    if verdict.floor.reaches_target(verdict.value):
        return Text("target reached", "green")
    return Text("above the floor, target not reached", "yellow")


def _measurements(results: Results) -> Table:
    found = {measurement.key: measurement.median for measurement in results}
    shown = [name for name in _CONTENDERS if any(key.contender == name for key in found)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("workload", no_wrap=True)
    table.add_column("median of the rounds", no_wrap=True)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for workload, measure in dict.fromkeys((key.workload, key.measure) for key in found):
        values = [found.get((workload, name, measure)) for name in shown]  # type: ignore[call-overload]
        table.add_row(workload, TITLES[measure], *(_cell(value) for value in values))
    return table


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
