"""`candlefleet bench`: measure this system against plain Celery and the limit of the machine, on servers of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.benchmark.chart import can_draw, draw
from app.benchmark.plan import PARTS, Plan, build_plan
from app.benchmark.report import Report, build_ratio_table
from app.benchmark.run import run_benchmark
from app.benchmark.soak import run_soak
from app.cli.output import Json, out, print_json, say
from app.cli.session import settings_with_logging, stop_on_signals
from app.errors import ConfigurationError, did_you_mean


def bench(
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Measurements of each contender.", show_default=str(Plan().rounds))
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"One part ({', '.join(PARTS)}); may be given several times.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="About a minute, and rougher.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a ratio is worse than its floor.")] = False,
    chart: Annotated[Path | None, typer.Option(help="Draw a chart into this PNG file.")] = None,
    soak: Annotated[
        int | None, typer.Option(min=1, help="Only watch memory, over so many jobs.", show_default="no soak")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure speed: this system, plain Celery and the limit of the machine, in turns."""
    plan = build_plan(quick=quick, rounds=rounds, parts=_known(only or []))
    if soak is not None:
        _soak(soak, check=check, as_json=as_json)
        return
    drawn = drawable(chart)
    with stop_on_signals() as stop:
        report = run_benchmark(settings_with_logging(), plan, stop, say)
    _print(report, as_json=as_json)
    if drawn is not None:
        draw(report, drawn)
        say(f"chart: {drawn}")
    if check and not report.passed:
        raise typer.Exit(1)


def _soak(jobs: int, *, check: bool, as_json: bool) -> None:
    with stop_on_signals() as stop:
        found = run_soak(settings_with_logging(), jobs, stop, say)
    if as_json:
        print_json(found.document())
    else:
        out.print(found.table())
        out.print(build_ratio_table(found.verdicts))
    if check and not found.passed:
        raise typer.Exit(1)


def _known(only: list[str]) -> list[str]:
    for word in only:
        if word not in PARTS:
            raise ConfigurationError(f"--only: no part {word!r}: {did_you_mean(word, PARTS)}")
    return only


def drawable(chart: Path | None) -> Path | None:
    """Return where to draw; said before the minutes pass, not after."""
    if chart is None:
        return None
    if not chart.resolve().parent.is_dir():
        raise ConfigurationError(f"--chart: no folder {chart.parent}")
    if not can_draw():
        say("no chart is drawn: matplotlib is not installed (it comes with the extra `bench`)", style="yellow")
        return None
    return chart


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(report.document())
        return
    for table in report.tables():
        out.print(table)
        out.print()
    machine = report.machine
    out.print(
        f"medians of {report.plan.rounds} rounds in {report.elapsed_s:.0f} s on {machine['cores']} cores "
        f"({machine['processor']})",
        highlight=False,
    )
