"""`candlefleet status`, `outcomes` and `decisions`: what is in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape

from app.cli.filters import Correlation, Frame, Since, Symbol
from app.cli.operating import operating
from app.cli.output import Json, Limit, build_table, err, out, print_json, print_rows
from app.domain.jobs import OutcomeStatus
from app.operations_pressure import describe_throttled, describe_waiting
from app.storage import listings


class Direction(StrEnum):
    """An action, as a word."""

    SHORT = "short"
    FLAT = "flat"
    LONG = "long"


_PRESSURE = ("queue", "waiting", "limit", "oldest_s", "oldest_limit_s", "held", "full")
_PRODUCER = ("producer", "is_alive", "feed", "candles", "jobs", "held", "expired", "let_go", "seen_at")
_ACTIONS = {Direction.SHORT: -1, Direction.FLAT: 0, Direction.LONG: 1}


def status(as_json: Json = False) -> None:
    """Show queues, nodes, jobs and latency."""
    with operating() as operations:
        figures = operations.status()
    if as_json:
        print_json(figures)
    else:
        _print_status(figures)


def outcomes(
    dispatch: Annotated[int | None, typer.Option(help="Only this dispatch.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Only this strategy.")] = None,
    state: Annotated[OutcomeStatus | None, typer.Option("--status", help="Only this status.")] = None,
    symbol: Symbol = None,
    timeframe: Frame = None,
    since: Since = None,
    correlation: Correlation = None,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="List the attempts that were followed by another instead.")
    ] = False,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List outcomes, newest dispatch first."""
    load = listings.list_attempts if attempts else listings.list_outcomes
    with operating() as operations, operations.reading() as connection:
        rows = load(
            connection,
            limit=limit,
            dispatch=dispatch,
            strategy=strategy,
            status=state,
            symbol=symbol,
            timeframe=timeframe,
            since=since,
            correlation=correlation,
        )
    columns = ["dispatch_id", "symbol", "timeframe", "open_time", "strategy", "status"]
    columns += ["attempt", "worker"] if attempts else ["action", "strength", "edge"]
    columns += ["processing_ms", *(["error"] if any(row["error"] for row in rows) else [])]
    print_rows(rows, columns, as_json=as_json, empty="No attempts." if attempts else "No outcomes.")


def decisions(
    symbol: Symbol = None,
    timeframe: Frame = None,
    action: Annotated[Direction | None, typer.Option(help="Only this direction.")] = None,
    since: Since = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List decisions, newest first."""
    with operating() as operations, operations.reading() as connection:
        rows = listings.list_decisions(
            connection,
            limit=limit,
            symbol=symbol,
            timeframe=timeframe,
            action=None if action is None else _ACTIONS[action],
            since=since,
        )
    columns = ("dispatch_id", "symbol", "timeframe", "open_time", "action", "score", "weight_heard", "closed_by")
    print_rows(rows, (*columns, "latency_ms"), as_json=as_json, empty="No decisions.")


def _print_status(figures: dict[str, Any]) -> None:
    jobs = figures["jobs"]
    out.print(
        f"[bold]{jobs['total']:,}[/] jobs: {jobs['succeeded']:,} succeeded, {jobs['failed']:,} failed, "
        f"{jobs['waiting']:,} waiting"
    )
    out.print(
        f"{figures['candles']:,} candles, {figures['dispatches']:,} dispatches "
        f"({figures['open_dispatches']:,} open), {figures['decisions']:,} decisions"
    )
    out.print(f"job       {_percentiles(figures['processing_ms'])}")
    out.print(f"to landed {_percentiles(figures['latency_ms'])}")
    if None in figures["queues"].values():
        err.print("The broker does not answer: what waits in the queues is unknown.", style="yellow")
    out.print(build_table(figures["pressure"], _PRESSURE))
    _print_producers(figures["producers"])
    for breaker in figures["breakers"]:
        out.print(f"[yellow]breaker[/]   {describe_breaker(breaker)}", highlight=False)
    if figures["quarantined"]:
        names = ", ".join(figures["quarantined"])
        out.print(f"[red]quarantined[/] {names}: lift with 'candlefleet strategies resume'", highlight=False)
    if figures["nodes"]:
        columns = ("node", "is_alive", "slots", "busy", "processed", "errors", "seen_at")
        out.print(build_table(figures["nodes"], columns))
        sent, sampled, dropped = (figures["events"][what] for what in ("sent", "sampled", "dropped"))
        out.print(f"events    {sent:,} sent, {sampled:,} sampled out, {dropped:,} dropped")
    else:
        out.print("No worker has reported: start one with 'candlefleet worker'.")


def _print_producers(producers: Sequence[dict[str, Any]]) -> None:
    if producers:
        rows = [{**each, "held": sum(each["held"].values())} for each in producers]
        out.print(build_table(rows, _PRODUCER))
    for line in describe_waiting(producers):
        out.print(f"[yellow]waiting[/]   {escape(line)}", highlight=False)
    for line in describe_throttled(producers):
        out.print(f"[yellow]throttled[/] {escape(line)}", highlight=False)


def describe_breaker(breaker: Mapping[str, Any]) -> str:
    """Say in a line how a breaker stands."""
    until = "" if breaker["open_until"] is None else f" until {breaker['open_until']:%H:%M:%S} UTC"
    state = breaker["state"].replace("_", " ")
    counts = f"{breaker['failures']} failures in a row, {breaker['crashes']} crashes"
    return f"{breaker['name']} is {state}{until} ({counts})"


def _percentiles(figures: dict[str, float | None]) -> str:
    known = [f"{name} {value:,.2f} ms" for name, value in figures.items() if value is not None]
    return ", ".join(known) or "no jobs yet"
