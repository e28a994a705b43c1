"""`candlefleet workers`: the nodes of the fleet, and how many slots each has."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.operating import operating
from app.cli.output import Json, err, print_json, print_rows
from app.operations_workers import list_workers, parse_change
from app.operations_workers import scale as scale_node

cli = typer.Typer(help="List the worker nodes, or change how many slots one has.", invoke_without_command=True)

COLUMNS = (
    "name",
    "slots",
    "busy",
    "queues",
    "processed",
    "errors",
    "error_percent",
    "memory_mb",
    "uptime_s",
    "seen",
    "is_alive",
)


@cli.callback()
def workers(context: typer.Context, as_json: Json = False) -> None:
    """List the worker nodes, or change how many slots one has."""
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@cli.command("list")
def list_nodes(as_json: Json = False) -> None:
    """List the worker nodes: slots, what they do, have done and take."""
    _list(as_json=as_json)


# a change such as -1 would be taken for an option
@cli.command(context_settings={"ignore_unknown_options": True})
def scale(
    node: Annotated[str, typer.Argument(help="Name of a node.")],
    change: Annotated[str, typer.Argument(metavar="+N|-N|=N", help="Slots more, fewer, or in all.")],
    as_json: Json = False,
) -> None:
    """Give a running node more slots, or fewer: those that are busy finish what they run."""
    parse_change(change)
    with operating() as operations:
        scaled = scale_node(operations, node, change)
    if as_json:
        print_json(asdict(scaled))
    else:
        err.print(f"{scaled.node} has {scaled.slots} slots; it had {scaled.before}.", highlight=False)


def _list(*, as_json: bool) -> None:
    with operating() as operations:
        rows = list_workers(operations)
    print_rows(rows, COLUMNS, as_json=as_json, empty="No worker node has reported.")
