"""The filters that listing commands share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from app.domain.candles import Timeframe

Symbol = Annotated[str | None, typer.Option(help="Only this symbol.")]
Frame = Annotated[Timeframe | None, typer.Option("--timeframe", help="Only this timeframe.")]
Since = Annotated[datetime | None, typer.Option(help="Only candles opened at or after this moment, UTC.")]
Correlation = Annotated[str | None, typer.Option(help="Only what belongs to this correlation id.")]


def to_utc(moment: datetime | None) -> datetime | None:
    """Read a moment of the command line as UTC."""
    return None if moment is None else moment.replace(tzinfo=UTC)
