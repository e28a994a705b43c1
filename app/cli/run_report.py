"""`candlefleet runs report`: what came of a run, as a ranking, a page, CSV or JSON."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.filters import RunId
from app.cli.operating import operating
from app.cli.output import Json, print_rows, print_text, say
from app.errors import ConfigurationError
from app.operations_report import build_report
from app.runs.metrics import Metrics
from app.runs.report.document import Document, SelectionReport
from app.runs.report.html import to_html
from app.runs.report.table import to_csv
from app.wording import counted

#: Units that are printed; all of them are in the page, in CSV and in JSON.
RANKED = 20


def report(
    run: RunId,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page there.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the figures of all units there, a row each.")] = None,
    as_json: Json = False,
) -> None:
    """Report on a run: ranking by Sharpe ratio, with deflated ones, curves, data, versions."""
    _require_writable("--html", html)
    _require_writable("--csv", csv)
    with operating() as operations:
        document = build_report(operations, run)
    _write("--html", html, to_html, document)
    _write("--csv", csv, to_csv, document)
    if as_json:
        print_text(document.model_dump_json(indent=2))
        return
    for path in filter(None, (html, csv)):
        say(f"Written: {path}")
    if document.selection is None:
        _print_ranking(document)
    else:
        _print_selected(document.selection)


def _require_writable(option: str, path: Path | None) -> None:
    """Require that a report can be written, before it is computed.

    Raises:
        ConfigurationError: it cannot.
    """
    if path is None:
        return
    folder = path.parent
    if os.path.isdir(path):  # noqa: PTH112 - unlike that of Path it has an answer for names that are too long
        found = "a folder"
    elif not os.path.isdir(folder):  # noqa: PTH112 - the same
        found = f"no folder {folder}"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):  # noqa: PTH110 - the same
        found = "one that may not be written"
    else:
        return
    raise ConfigurationError(f"{option} {path}: expected a file that can be written, found {found}")


def _write(option: str, path: Path | None, build: Callable[[Document], str], document: Document) -> None:
    if path is None:
        return
    try:
        path.write_text(build(document), encoding="utf-8")
    except OSError as error:
        found = error.strerror or str(error)
        raise ConfigurationError(f"{option} {path}: expected a file that can be written, found: {found}") from error


def _print_selected(selection: SelectionReport) -> None:
    rows = [each.model_dump() for each in selection.selected]
    columns = ("symbol", "action", "strategy", "edge_percent", "price", "stop", "target", "size_percent")
    print_rows(rows, (*columns, "risk_percent"), as_json=False, empty="Nothing was selected.")


def _print_ranking(document: Document) -> None:
    rows = [
        {"unit": unit.label, "symbol": unit.symbol, "state": unit.state, **shorten(_plain(unit.metrics))}
        | ({"deflated": unit.deflated.probability, "trials": unit.deflated.trials} if unit.deflated else {})
        for unit in document.units[:RANKED]
    ]
    columns = ("unit", "symbol", "state", "return_percent", "sharpe", "deflated", "trials", "max_drawdown_percent")
    shown = f"{len(rows):,} of {counted(len(document.units), 'unit')}, the best Sharpe ratio first"
    print_rows(rows, (*columns, "trades"), as_json=False, empty="No units.", caption=shown)


def _plain(metrics: Metrics | None) -> dict[str, Any] | None:
    return None if metrics is None else metrics.model_dump()


def shorten(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Return the metrics of a unit that a table in a terminal has room for."""
    known = metrics or {}
    names = ("total_return_percent", "sharpe", "max_drawdown_percent", "trades")
    return {name.removeprefix("total_"): known.get(name) for name in names}
