"""`candlefleet trace`: the story of a candle or a job, in time order."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from app.cli.operating import operating
from app.cli.output import Json, out, print_json
from app.operations_trace import Event, Story
from app.operations_trace import trace as tell

#: Colours of what happened; what is not named here has none.
_STYLES = {"decided": "bold cyan", "completed": "green", "attempt": "yellow", "breaker": "magenta", "landed": "green"}
_STYLES |= {"position": "blue", "action": "bold blue"}


def trace(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="A correlation id, a dispatch, or a job (1042.7).")],
    as_json: Json = False,
) -> None:
    """Tell the story of a candle or of one job; exit code 1 when nothing has this id."""
    with operating() as operations:
        story = tell(operations, wanted)
    print_story(story, as_json=as_json)


def print_story(story: Story, *, as_json: bool) -> None:
    """Print a story: one JSON document, or lines for people."""
    if as_json:
        print_json(asdict(story))
        return
    what = f"Job {story.job}" if story.job else f"Dispatch {story.dispatch_id}"
    revision = f" revision {story.revision}" if story.revision else ""
    candle = f"{story.symbol} {story.timeframe} {story.open_time:%Y-%m-%d %H:%M}{revision}"
    out.print(f"[bold]{what}[/]  {candle}  {story.landed} of {story.expected} landed, {story.state}", highlight=False)
    out.print(f"correlation {story.correlation_id}", style="dim", highlight=False)
    out.print(_table(story.events))
    if story.chunks:
        out.print("\nHow the jobs were sent", style="bold")
        out.print(_chunks(story))
    if story.missing:
        out.print(f"not landed yet: {', '.join(story.missing)}", style="yellow", highlight=False)


def _table(events: list[Event]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for event in events:
        table.add_row(_after(event.after_ms), _what(event), Text(event.who), Text(event.detail))
    return table


def _chunks(story: Story) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("chunk", "queue", "jobs", "estimated", "why", "strategies"):
        right = name in ("chunk", "jobs", "estimated")
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for number, chunk in enumerate(story.chunks, start=1):
        estimated, names = f"{chunk.estimated_ms:,.2f} ms", ", ".join(chunk.strategies)
        jobs = str(len(chunk.strategies))
        table.add_row(str(number), chunk.priority, jobs, estimated, Text(chunk.reason), Text(names))
    return table


def _what(event: Event) -> Text:
    if event.what == "landed" and event.data["status"] != "succeeded":
        style = "red" if event.data["status"] in ("failed", "timed_out", "crashed") else "yellow"
    else:
        style = _STYLES.get(event.what, "")
    return Text(f"{event.what} (late)" if event.is_late else event.what, style)


def _after(milliseconds: float) -> str:
    if abs(milliseconds) < 1000:
        return f"{milliseconds:+.1f} ms"
    if abs(milliseconds) < 120_000:
        return f"{milliseconds / 1000:+.2f} s"
    return f"{milliseconds / 60_000:+,.1f} min"
