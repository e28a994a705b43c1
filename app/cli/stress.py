"""`candlefleet stress`: evaluate many markets once on servers of its own, measure it, and validate what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import Json, build_table, out, print_json, say
from app.cli.selection import build_validation_table
from app.cli.session import settings_with_logging, stop_on_signals
from app.stress.plan import USUAL_STRATEGY, Plan, Size
from app.stress.report import Report
from app.stress.run import run_stress


def stress(
    size: Annotated[Size, typer.Argument(help="100, 500, 1,000 or 10,000 markets.")],
    data: Annotated[
        Path | None, typer.Option(help="Candle files to cut the markets from.", show_default="generated candles")
    ] = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Built-in strategy, or 'all'; repeatable.", show_default=USUAL_STRATEGY),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker nodes.")] = 1,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Slots of each node.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Runs; the one of median length is shown.")] = 5,
    as_json: Json = False,
) -> None:
    """Evaluate many markets through strategies, select positions, and validate: exit code 1 when a check fails."""
    plan = Plan(size, data, tuple(strategies or (USUAL_STRATEGY,)), workers, slots, rounds)
    with stop_on_signals() as stop:
        report = run_stress(settings_with_logging(), plan, stop, say)
    if as_json:
        print_json(report.document())
    else:
        _print(report)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    document = report.document()
    figures = ("markets", "candles_read", "evaluations", "elapsed_s", "markets_per_s", "evaluations_per_s")
    row = {**document, "slots": len(document["memory_mb"]), "memory_mb": document["memory_mb"]}
    out.print(build_table([row], ("size", *figures, "slots", "memory_mb")))
    out.print()
    stages = ", ".join(f"{stage} {took:,.0f} ms" for stage, took in document["stages_ms"].items())
    out.print(f"{stages}; with {', '.join(document['strategies'])}", highlight=False)
    out.print(f"markets/s of all rounds: {', '.join(f'{rate:,.0f}' for rate in document['rounds'])}\n", highlight=False)
    rejected = [{"became": "selected", "units": document["selection"]["selected"]}]
    rejected += [{"became": reason, "units": count} for reason, count in document["selection"]["rejected"].items()]
    out.print(build_table(rejected, ("became", "units")))
    out.print()
    out.print(build_validation_table(document))
