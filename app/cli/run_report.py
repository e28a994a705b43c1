"""`candlefleet runs report`: what came of a run, as a ranking, a page, CSV or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.filters import RunId
from app.cli.operating import operating
from app.cli.output import Json, print_rows, print_text, say
from app.operations_report import build_report
from app.runs.metrics import Metrics
from app.runs.report.document import Document, SelectionReport
from app.runs.report.html import to_html
from app.runs.report.table import to_csv

#: Units that are printed; all of them are in the page, in CSV and in JSON.
RANKED = 20


def report(
    run: RunId,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page there.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the figures of all units there, a row each.")] = None,
    as_json: Json = False,
) -> None:
    """Report on a run: ranking with deflated Sharpe ratios, curves, data, versions."""
    with operating() as operations:
        document = build_report(operations, run)
    if html is not None:
        html.write_text(to_html(document), encoding="utf-8")
    if csv is not None:
        csv.write_text(to_csv(document), encoding="utf-8")
    if as_json:
        print_text(document.model_dump_json(indent=2))
        return
    for path in filter(None, (html, csv)):
        say(f"Written: {path}")
    if document.selection is None:
        _print_ranking(document)
    else:
        _print_selected(document.selection)


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
    print_rows(rows, (*columns, "trades"), as_json=False, empty="No units.")


def _plain(metrics: Metrics | None) -> dict[str, Any] | None:
    return None if metrics is None else metrics.model_dump()


def shorten(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Return the metrics of a unit that a table in a terminal has room for."""
    known = metrics or {}
    names = ("total_return_percent", "sharpe", "max_drawdown_percent", "trades")
    return {name.removeprefix("total_"): known.get(name) for name in names}
