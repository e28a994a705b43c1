"""`candlefleet demo` and `candlefleet up`: everything on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app import demonstration, upkeep
from app.cli.output import Json, build_table, err, out, print_json, say
from app.cli.session import settings_with_logging, stop_on_signals
from app.demonstration import Plan, Summary

#: Between two lines of progress when nobody watches a bar, share of the whole.
LINE_EVERY = 0.1


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Candle files to replay.", show_default="3 x 2,000 generated candles")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker nodes.")] = 1,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Slots of each node.")] = 2,
    as_json: Json = False,
) -> None:
    """Run the whole flow on this machine, with servers of its own, and show what came of it."""
    settings = settings_with_logging()
    with stop_on_signals() as stop, _progress(as_json=as_json) as on_progress:
        summary = demonstration.demonstrate(settings, Plan(data, workers, slots), stop, say, on_progress)
    if as_json:
        print_json(summary.document())
    else:
        _print(summary, settings.home / "demo")


def up(
    feed: Annotated[str | None, typer.Option(help="Also run a producer: replay:PATH.")] = None,
    speed: Annotated[float | None, typer.Option(help="Factor of real time of that feed.")] = None,
    slots: Annotated[int, typer.Option(min=1, max=512, help="Slots of the worker node.")] = 2,
) -> None:
    """Keep a whole deployment running on this machine, Flower and API included, until Ctrl-C."""
    settings = settings_with_logging()
    with stop_on_signals() as stop:
        upkeep.keep_up(settings, upkeep.Plan(feed, speed, slots), stop, say)


@contextmanager
def _progress(*, as_json: bool) -> Iterator[Callable[[demonstration.Progress], None]]:
    if not err.is_terminal or as_json:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("outcomes"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("Working", total=None)

        def update(progress: demonstration.Progress) -> None:
            total = round(progress.landed / progress.share) if progress.share else None
            bar.update(task, completed=progress.landed, total=total)

        yield update


def _lines() -> Callable[[demonstration.Progress], None]:
    said = 0.0

    def update(progress: demonstration.Progress) -> None:
        nonlocal said
        if progress.share >= said + LINE_EVERY:
            said = progress.share - progress.share % LINE_EVERY
            say(f"{progress.share:4.0%}  {progress.candles:,} candles, {progress.landed:,} outcomes")

    return update


def _print(summary: Summary, home: Path) -> None:
    statuses = ", ".join(f"{count:,} {status}" for status, count in summary.outcomes.items()) or "none"
    directions = ", ".join(f"{count:,} {action}" for action, count in summary.decisions.items())
    latency = ", ".join(f"{name} {value:,.0f} ms" for name, value in summary.latency_ms.items() if value is not None)
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in summary.rejected.items()) or "none"
    held = summary.positions
    lines = [
        f"[bold]candles[/]    {summary.candles:,} from {summary.source}",
        f"[bold]outcomes[/]   {statuses}",
        f"[bold]decisions[/]  {sum(summary.decisions.values()):,}: {directions}",
        f"[bold]positions[/]  {held['open']:,} open, {held['closed']:,} closed, profit {held['profit']:,.2f} "
        f"after fees of {held['fees']:,.2f}",
        f"[bold]speed[/]      {summary.outcomes_per_s:,.0f} outcomes a second for {summary.elapsed_s:.1f} s",
        f"[bold]to landed[/]  {latency}",
        f"[bold]rejected[/]   {rejected}; {summary.gaps:,} gaps",
        *(f"[yellow]unreadable[/] {message}" for message in summary.unreadable),
    ]
    out.print(Panel("\n".join(lines), title="Candlefleet", title_align="left", expand=False))
    out.print(build_table(summary.signals, ("strategy", "priority", "long", "flat", "short", "failed", "mean_ms")))
    out.print(f"\nLook further:  candlefleet --home {home} decisions", highlight=False)
    out.print(f"               candlefleet --home {home} outcomes --strategy ema-cross", highlight=False)
    out.print(f"               candlefleet --home {home} positions --open", highlight=False)
    out.print("Keep it running, with Flower:  candlefleet up", highlight=False)
