"""What commands print: one JSON document on stdout with --json, tables for people otherwise."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Columns of a table that goes into a file or a pipe: nothing is cut there.
WIDE = 240

#: Columns that hold -1, 0 or 1 and are shown as short, flat or long.
ACTIONS = ("action", "side")

#: For people: results to stdout, progress to stderr.
out = Console(width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Most rows.")]
Offset = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Rows to leave out before these.")]

#: How a value is shown, by column.
Format = Callable[[Any], str | Text]

_ACTIONS = {1: Text("long", "green"), -1: Text("short", "red"), 0: Text("flat", "dim"), None: Text("-", "dim")}
_GOOD = ("succeeded", "complete", "active")


def say(line: str, style: str | None = None) -> None:
    """Tell the operator a line on stderr: as it is, and not wrapped, so that a path or password can be copied."""
    err.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(document: object) -> None:
    """Print one JSON document."""
    json.dump(document, sys.stdout, default=plain, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_text(document: str) -> None:
    """Print one JSON document that is written already: of ten thousand units that is ten times faster."""
    sys.stdout.write(f"{document}\n")


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str, caption: str | None = None
) -> None:
    """Print rows: all of their fields as JSON, or the named columns as a table.

    Args:
        rows: what to print.
        columns: of the table.
        as_json: which of the two.
        empty: said to a person when there is nothing.
        caption: said below the table, such as the order of its rows.
    """
    if as_json:
        print_json(list(rows))
    elif not rows:
        err.print(empty)
    else:
        out.print(build_table(rows, columns))
        if caption is not None:
            out.print(caption, style="dim", highlight=False)


def build_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Build a table: numbers to the right, times short, statuses and actions coloured."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        numeric = any(isinstance(row[column], int | float) for row in rows) and column not in ACTIONS
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left", no_wrap=column != "error")
    for row in rows:
        table.add_row(*(show(column, row[column]) for column in columns))
    return table


def show(column: str, value: Any) -> str | Text:
    """Return a value as a person reads it."""
    if column in ACTIONS:
        return _ACTIONS[value]
    if column in ("status", "state"):
        return Text(str(value), "green" if value in _GOOD else "yellow")
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}" if value.second else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def plain(value: object) -> object:
    """Return what JSON has no word for as text.

    Raises:
        TypeError: there is no text for it.
    """
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"expected a JSON value, found {type(value).__name__}")
