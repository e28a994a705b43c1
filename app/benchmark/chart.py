"""The chart of a benchmark, a PNG. Needs matplotlib, which only the extra `bench` installs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.benchmark.report import Report
from app.benchmark.results import CELERY, FLEET, JOBS_PER_S, LIMIT, P50_MS, UNCHUNKED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {FLEET: "#1f6feb", UNCHUNKED: "#8ab4f8", CELERY: "#e8710a", LIMIT: "#9aa0a6"}
_INCHES = (11.0, 7.5)


def can_draw() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(report: Report, path: Path) -> None:
    """Draw throughput, latency and ratios into a PNG file; matplotlib must be installed."""
    # imported here: it takes a second, and only this command ever needs it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    throughput, latency, ratios = figure.subplot_mosaic([["throughput", "latency"], ["ratios", "ratios"]]).values()
    _draw_bars(throughput, report, JOBS_PER_S, "Landed outcomes per second (more is better)")
    _draw_bars(latency, report, P50_MS, "One candle to its decision, p50 ms (less is better)")
    _draw_ratios(ratios, report)
    cores = report.machine.get("cores")
    figure.suptitle(f"candlefleet bench: medians of {report.plan.rounds} rounds on {cores} cores", fontweight="bold")
    figure.savefig(path, dpi=120, format="png")


def _draw_bars(axes: Axes, report: Report, measure: str, title: str) -> None:
    found = {(m.key.workload, m.key.contender): m for m in report.results if m.key.measure == measure}
    workloads = list(dict.fromkeys(workload for workload, _ in found))
    names = [name for name in _COLOURS if any(contender == name for _, contender in found)]
    width = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        bars = [(place, found[w, name]) for place, w in enumerate(workloads) if (w, name) in found]
        medians = [measurement.median for _, measurement in bars]
        spread: Any = [
            [measurement.median - min(measurement.values) for _, measurement in bars],
            [max(measurement.values) - measurement.median for _, measurement in bars],
        ]
        places = [place + (number - (len(names) - 1) / 2) * width for place, _ in bars]
        axes.bar(places, medians, width, label=name, color=_COLOURS[name], yerr=spread, error_kw={"linewidth": 0.8})
    axes.set_title(title, fontsize=10)
    if found:
        axes.set_yscale("log")
        axes.set_xticks(range(len(workloads)), workloads, rotation=20, fontsize=8)
        axes.legend(fontsize=8)


def _draw_ratios(axes: Axes, report: Report) -> None:
    verdicts = report.verdicts[::-1]
    # above 1 is better than promised, whichever way the ratio should go
    reached = [v.value / v.floor.target if v.floor.is_least else v.floor.target / v.value for v in verdicts]
    colours = [
        "#188038" if share >= 1 else "#f9ab00" if v.passed else "#d93025"
        for share, v in zip(reached, verdicts, strict=True)
    ]
    axes.barh([v.floor.name for v in verdicts], reached, color=colours)
    for place, verdict in enumerate(verdicts):
        axes.text(
            reached[place], place, f" {verdict.value:.3g} (target {verdict.floor.target:.3g})", va="center", fontsize=8
        )
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlim(0, max([1.0, *reached]) * 1.25)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title("Ratios, as shares of their targets (past the line: reached)", fontsize=10)
