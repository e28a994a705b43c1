"""`candlefleet queues`: what waits, and how to empty a queue."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from app.broker import QUEUES
from app.cli.operating import operating
from app.cli.output import Json, err, print_json, print_rows
from app.errors import ConfigurationError
from app.operations_cancel import clear_queue, require_queue

cli = typer.Typer(help="Look at the queues, or empty one.", no_args_is_help=True)


@cli.command("list")
def list_queues(as_json: Json = False) -> None:
    """List the queues: messages waiting, and how long the first of them has waited."""
    with operating() as operations:
        rows = [asdict(state) for state in operations.queues.look()]
    print_rows(rows, ("queue", "depth", "oldest_s", "oldest_job"), as_json=as_json, empty="No queues.")


@cli.command()
def clear(
    queue: Annotated[str, typer.Argument(help=f"One of {', '.join(QUEUES)}.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Take back every job that waits in a queue: all end as cancelled."""
    require_queue(queue)
    with operating() as operations:
        if not yes:
            _ask(queue, next(state.depth for state in operations.queues.look() if state.queue == queue))
        cleared = clear_queue(operations, queue)
    if as_json:
        print_json(asdict(cleared))
        return
    err.print(f"{cleared.messages:,} messages removed from {queue}, {cleared.jobs:,} jobs cancelled.")
    if cleared.kept:
        err.print(f"{cleared.kept:,} messages are not chunks and were put back: a worker makes dead letters of them.")
    if cleared.unknown:
        err.print(f"{cleared.unknown:,} of the chunks belong to dispatches that the ledger does not hold.")


def _ask(queue: str, depth: int) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(f"this cancels every job that waits in {queue}: say --yes")
    typer.confirm(f"Cancel the jobs of {depth:,} messages that wait in {queue}?", abort=True, err=True)
