"""`candlefleet jobs`: one job looked at, jobs taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.operating import operating
from app.cli.output import Json, build_table, err, out, print_json
from app.cli.trace import print_story
from app.operations_cancel import cancel_jobs, parse_job_id
from app.operations_trace import trace
from app.storage.cancellation import Ended

cli = typer.Typer(help="Look at a job, or take jobs back.", no_args_is_help=True)

#: Rows printed to a person; the rest is counted.
SHOWN = 40


@cli.command()
def show(
    job: Annotated[str, typer.Argument(help="A job: <dispatch>.<strategy>.")],
    as_json: Json = False,
) -> None:
    """Tell what happened to one job."""
    parse_job_id(job)
    with operating() as operations:
        story = trace(operations, job)
    print_story(story, as_json=as_json)


@cli.command()
def cancel(
    jobs: Annotated[list[str], typer.Argument(help="Jobs: <dispatch>.<strategy> each.")],
    as_json: Json = False,
) -> None:
    """Take jobs back: they end as cancelled; one that has ended keeps its outcome."""
    with operating() as operations:
        ends = cancel_jobs(operations, jobs)
    print_ends(ends, as_json=as_json)


def print_ends(ends: Sequence[Ended], *, as_json: bool) -> None:
    """Print how jobs that should be cancelled have ended."""
    if as_json:
        print_json([asdict(end) for end in ends])
        return
    now = sum(end.is_news for end in ends)
    rows = [
        {"job": end.job, "strategy": end.strategy, "status": end.status, "when": "now" if end.is_news else "before"}
        for end in ends[:SHOWN]
    ]
    out.print(build_table(rows, ("job", "strategy", "status", "when")))
    if len(ends) > SHOWN:
        out.print(f"and {len(ends) - SHOWN:,} more")
    err.print(f"{now:,} cancelled; {len(ends) - now:,} had ended before and keep their outcome.")
