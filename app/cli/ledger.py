"""`candlefleet status`, `outcomes`, `decisions` and `dispatches`: what is in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.output import Json, Limit, build_table, err, out, print_json, print_rows
from app.cli.session import operating
from app.domain.candles import Timeframe
from app.domain.jobs import DispatchState, OutcomeStatus
from app.storage import listings


class Direction(StrEnum):
    """An action, as a word."""

    SHORT = "short"
    FLAT = "flat"
    LONG = "long"


Symbol = Annotated[str | None, typer.Option(help="Only this symbol.")]
Frame = Annotated[Timeframe | None, typer.Option("--timeframe", help="Only this timeframe.")]
Since = Annotated[datetime | None, typer.Option(help="Only candles opened at or after this moment, UTC.")]

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
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List outcomes, newest dispatch first."""
    with operating() as operations, operations.reading() as connection:
        rows = listings.list_outcomes(
            connection,
            limit=limit,
            dispatch=dispatch,
            strategy=strategy,
            status=state,
            symbol=symbol,
            timeframe=timeframe,
            since=_utc(since),
        )
    columns = ["dispatch_id", "symbol", "timeframe", "open_time", "strategy", "status", "action", "strength", "edge"]
    columns += ["processing_ms", *(["error"] if any(row["error"] for row in rows) else [])]
    print_rows(rows, columns, as_json=as_json, empty="No outcomes.")


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
            since=_utc(since),
        )
    columns = ("dispatch_id", "symbol", "timeframe", "open_time", "action", "score", "weight_heard", "closed_by")
    print_rows(rows, (*columns, "latency_ms"), as_json=as_json, empty="No decisions.")


def dispatches(
    symbol: Symbol = None,
    timeframe: Frame = None,
    state: Annotated[DispatchState | None, typer.Option(help="Only this state.")] = None,
    since: Since = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List dispatches, newest first."""
    with operating() as operations, operations.reading() as connection:
        rows = listings.list_dispatches(
            connection, limit=limit, symbol=symbol, timeframe=timeframe, state=state, since=_utc(since)
        )
    columns = ("id", "symbol", "timeframe", "open_time", "revision", "state", "landed", "expected", "created_at")
    print_rows(rows, columns, as_json=as_json, empty="No dispatches.")


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


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
    depths = figures["queues"]
    if None in depths.values():
        err.print("The broker does not answer: queue depths are unknown.", style="yellow")
    else:
        out.print("queues    " + ", ".join(f"{name} {depth}" for name, depth in depths.items()))
    if figures["nodes"]:
        columns = ("node", "is_alive", "slots", "busy", "processed", "errors", "seen_at")
        out.print(build_table(figures["nodes"], columns))
    else:
        out.print("No worker has reported: start one with 'candlefleet worker'.")


def _percentiles(figures: dict[str, float | None]) -> str:
    known = [f"{name} {value:,.2f} ms" for name, value in figures.items() if value is not None]
    return ", ".join(known) or "no jobs yet"
