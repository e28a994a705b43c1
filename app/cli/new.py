"""`candlefleet strategies new`: write a working strategy with its test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import Json, out, print_json, say
from app.scaffold.writing import Form, write_strategy


def new(
    name: Annotated[str, typer.Argument(help="Lower-case words joined by - or _, such as dip-buyer.")],
    form: Annotated[Form, typer.Option(help="A class that answers for all candles or for the last; or no code.")] = (
        Form.SIGNALS
    ),
    into: Annotated[Path, typer.Option(help="An existing folder; a folder of the name is made in it.")] = Path(),
    as_json: Json = False,
) -> None:
    """Write a new strategy that works: params, indicators, definition and test."""
    written = write_strategy(name, form, into)
    paths = [str(written.folder / path) for path in written.files]
    if as_json:
        print_json({"files": paths, "next": list(written.commands)})
        return
    for path in paths:
        out.print(path, markup=False, highlight=False, soft_wrap=True)
    say("Next:")
    for command in written.commands:
        say(f"  {command}")
    if written.installed:
        say(f"Installed on every worker (pip install .) its name in a definition is: {written.installed}")
