"""Arguments and options that commands share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from app.domain.base import read_moment
from app.domain.candles import Timeframe

#: Largest number of a run, a Postgres integer, and of a dispatch, a bigint.
MOST_RUN, MOST_DISPATCH = 2**31 - 1, 2**63 - 1


def parse_moment(text: str) -> datetime:
    """Read a moment of the command line: UTC where no offset is stated.

    Raises:
        BadParameter: it is none.
    """
    try:
        return read_moment(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"expected a date or a moment such as 2024-01-31T12:00 or 2024-01-31T12:00+02:00, found {text!r}"
        ) from error


RunId = Annotated[int, typer.Argument(metavar="RUN", min=1, max=MOST_RUN, help="Number of the run.")]
Symbol = Annotated[str | None, typer.Option(help="Only this symbol.")]
Frame = Annotated[Timeframe | None, typer.Option("--timeframe", help="Only this timeframe.")]
Since = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_moment,
        metavar="TIME",
        help="Only candles opened at or after this moment, UTC unless it states an offset.",
    ),
]
Correlation = Annotated[str | None, typer.Option(help="Only what belongs to this correlation id.")]
