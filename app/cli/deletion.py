"""`candlefleet runs delete`: runs taken away for good, after a question to whoever sits at a terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.filters import MOST_RUN
from app.cli.operating import operating
from app.cli.output import Json, print_json, say
from app.operations_deletion import Deletable, delete, find_deletable
from app.wording import counted


def delete_runs(
    run: Annotated[
        list[int], typer.Argument(metavar="RUN...", min=1, max=MOST_RUN, help="Numbers of runs that have ended.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; without a terminal nobody is asked.")] = False,
    as_json: Json = False,
) -> None:
    """Delete runs that have ended, with all they left behind. Safe to repeat after it was interrupted."""
    with operating() as operations:
        wanted = find_deletable(operations, run)
        for unknown in wanted.unknown:
            say(f"no run {unknown}: deleted before, or never there", style="yellow")
        if not yes and is_terminal():
            typer.confirm(_ask_to_delete(wanted), abort=True, err=True)
        for each in wanted.runs:
            delete(operations, each.id)
            say(f"Run {each.id} is deleted: {counted(each.units, 'unit')}")
    if as_json:
        deleted = [{"run": each.id, "units": each.units} for each in wanted.runs]
        print_json({"deleted": deleted, "unknown": list(wanted.unknown)})


def is_terminal() -> bool:
    """Tell whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _ask_to_delete(wanted: Deletable) -> str:
    names = ", ".join(str(each.id) for each in wanted.runs)
    return (
        f"Delete run{'s' if len(wanted.runs) > 1 else ''} {names} for good? "
        f"{counted(wanted.units, 'unit no longer counts', 'units no longer count')} "
        "as trials in the deflated Sharpe ratios of later runs"
    )
