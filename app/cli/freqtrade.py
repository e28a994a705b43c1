"""`candlefleet strategies freqtrade`: what a freqtrade strategy file says over candles."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import Json, err, out, print_json, print_rows, say
from app.domain.candles import Candle
from app.errors import FeedError
from app.feeds.replay import ReplayFeed
from app.strategies.bars import Bars
from app.strategies.registry import import_freqtrade

_COLUMNS = ("symbol", "timeframe", "rows", "enter_long", "exit_long", "enter_short", "exit_short")


def freqtrade(
    file: Annotated[Path, typer.Argument(help="A Python file with a freqtrade strategy.")],
    data: Annotated[Path, typer.Option(help="Candle files: one, or a folder.")],
    name: Annotated[str, typer.Option("--class", help="Its class, when the file has several.")] = "",
    as_json: Json = False,
) -> None:
    """Analyse candle files with a freqtrade strategy: its entries and exits, cell by cell with --json."""
    report = import_freqtrade("report").build_report(file, name, load_series(data))
    if as_json:
        print_json(report)
    else:
        _print(report)


def load_series(data: Path) -> list[Bars]:
    """Load all candles of a file or folder, one series each.

    Raises:
        FeedError: nothing could be read, or a file only in part.
    """
    feed = ReplayFeed([data])
    series: dict[tuple[str, str], list[Candle]] = defaultdict(list)
    for batch in feed.batches():
        for candle in batch:
            series[candle.symbol, candle.timeframe].append(candle)
    if feed.report.unreadable:
        raise FeedError("; ".join(feed.report.unreadable))
    return [Bars.from_candles(candles) for candles in series.values()]


def _print(report: dict[str, Any]) -> None:
    values = ", ".join(f"{key} = {value}" for key, value in report["parameters"].items()) or "none"
    out.print(f"{report['strategy']}: start-up {report['startup']} candles; parameters: {values}", highlight=False)
    for text in report["left_out"]:
        say(f"left out: {text}", style="yellow")
    for text in dict.fromkeys(text for series in report["series"] for text in series["warnings"]):
        say(f"warned: {text}", style="yellow")
    print_rows(report["series"], _COLUMNS, as_json=False, empty="No candles.")
    err.print("Cell by cell: --json")
