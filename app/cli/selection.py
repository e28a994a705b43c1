"""How the results of evaluate runs, and the validation of any run, are shown to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from app.cli.output import out, print_rows
from app.operations_evaluations import SelectionReport

Rows = Sequence[Mapping[str, Any]]


def print_evaluations(units: Rows) -> None:
    """Print what strategies said of markets."""
    columns = ("number", "strategy", "symbol", "state", "open_time", "action", "strength", "edge_percent", "price")
    failed = ("error",) if any(unit["error"] for unit in units) else ()
    print_rows(units, (*columns, *failed), as_json=False, empty="No such units.", caption="The best edge first")


def print_selection(report: SelectionReport) -> None:
    """Print what was selected, what was rejected and why, and what is at risk then."""
    levels = ("price", "stop", "target", "size_percent", "risk_percent")
    chosen = ("rank", "symbol", "action", "strategy", "category", "edge_percent", "strength", *levels)
    print_rows(report.selected, chosen, as_json=False, empty="Nothing was selected.")
    out.print()
    columns = ("symbol", "action", "strategy", "category", "edge_percent", "reason", "detail")
    empty = "Which were rejected is no longer stored." if report.summary["rejected"] else "Nothing was rejected."
    print_rows(report.rejected, columns, as_json=False, empty=empty)
    out.print()
    _print_summary(report.summary)


def _print_summary(summary: Mapping[str, Any]) -> None:
    rejected = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in summary["rejected"].items())
    rules = summary["rules"]
    lines = (
        f"{summary['selected']:,} selected; rejected: {rejected or 'none'}",
        f"{len(summary['held']):,} positions were held before; in the end {summary['risk_percent']:.2f} % of "
        f"{rules['max_portfolio_risk_percent']:g} % are at risk and {summary['exposure_percent']:.1f} % of "
        f"{rules['max_exposure_percent']:g} % in the market",
    )
    for line in lines:
        out.print(line, highlight=False)


def print_validation(record: Mapping[str, Any]) -> None:
    """Print the validation record of a run."""
    out.print(build_validation_table(record))


def build_validation_table(record: Mapping[str, Any]) -> Table:
    """Build the table of a validation record: what was expected, what was found."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("validation", "expected", "found", ""):
        table.add_column(column)
    for check in record["checks"]:
        verdict = Text("passed", "green") if check["passed"] else Text("failed", "red")
        table.add_row(check["name"], check["expected"], check["found"], verdict)
    return table
