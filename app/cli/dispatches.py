"""`candlefleet dispatches`: listed, looked at, taken back."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.filters import MOST_DISPATCH, Correlation, Frame, Since, Symbol
from app.cli.jobs import print_ends
from app.cli.operating import operating
from app.cli.output import Json, Limit, print_rows
from app.cli.trace import print_story
from app.domain.jobs import DispatchState
from app.operations_cancel import cancel_dispatches
from app.operations_trace import trace
from app.storage import listings

cli = typer.Typer(help="List dispatches, look at one, or take some back.", invoke_without_command=True)


@cli.callback()
def dispatches(
    context: typer.Context,
    symbol: Symbol = None,
    timeframe: Frame = None,
    state: Annotated[DispatchState | None, typer.Option(help="Only this state.")] = None,
    since: Since = None,
    correlation: Correlation = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List dispatches, newest first."""
    if context.invoked_subcommand is not None:
        return
    with operating() as operations, operations.reading() as connection:
        rows = listings.list_dispatches(
            connection,
            limit=limit,
            symbol=symbol,
            timeframe=timeframe,
            state=state,
            since=since,
            correlation=correlation,
        )
    columns = ("id", "symbol", "timeframe", "open_time", "revision", "state", "landed", "expected", "created_at")
    print_rows(rows, columns, as_json=as_json, empty="No dispatches.")


@cli.command()
def show(
    dispatch: Annotated[int, typer.Argument(min=1, max=MOST_DISPATCH, help="A dispatch's id.")],
    as_json: Json = False,
) -> None:
    """Tell what happened to one dispatch."""
    with operating() as operations:
        story = trace(operations, str(dispatch))
    print_story(story, as_json=as_json)


@cli.command()
def cancel(
    dispatches: Annotated[list[int], typer.Argument(min=1, max=MOST_DISPATCH, help="Ids of dispatches.")],
    as_json: Json = False,
) -> None:
    """Take dispatches back: what has not ended ends as cancelled, and what has landed decides."""
    with operating() as operations:
        ends = cancel_dispatches(operations, dispatches)
    print_ends(ends, as_json=as_json)
