"""Evaluate runs as an operator handles them: which candle counts, and what came of the selection."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from app.domain.candles import EPOCH, Timeframe
from app.domain.runs import LATEST, Evaluation, RunKind, RunSpec, RunState, Series
from app.domain.selection import override
from app.errors import ConfigurationError
from app.operations import Operations
from app.settings import BatchSettings
from app.storage import listings_runs, runs
from app.storage.latest import load_opened
from app.storage.run_deletion import KEPT_POSITIONS


class SelectionReport(NamedTuple):
    """What a run selected and what not."""

    summary: dict[str, Any]
    """Rules, positions held before, counts, risk and exposure in the end."""
    selected: list[dict[str, Any]]
    """Best edge first."""
    rejected: list[dict[str, Any]]
    """Those that came closest first."""


def build_evaluation(batch: BatchSettings, spec: RunSpec, now: datetime) -> Evaluation | None:
    """Return which candles count for an evaluate run, and its rules; None for a backtest.

    Args:
        batch: settings, of which the specification may override what it likes.
        spec: what is asked for; as of `to`, or of now.
        now: aware.
    """
    if spec.kind is not RunKind.EVALUATE:
        return None
    until = now if spec.to_time == LATEST else spec.to_time
    age = batch.max_age_candles if spec.max_age_candles is None else spec.max_age_candles
    try:
        # the newest candle that can have closed by then opened one candle before
        since = until - (age + 1) * spec.timeframe.duration
    except OverflowError:  # before all time
        since = EPOCH
    return Evaluation(since, until, override(batch.selection, spec.selection))


def find_markets(
    connection: Connection, symbols: Sequence[str], timeframe: Timeframe, evaluation: Evaluation
) -> list[Series]:
    """Return the markets of an evaluate run: each with one candle, or with none when its latest is too old."""
    opened = load_opened(connection, symbols, timeframe, evaluation.until)
    return [Series(symbol, int(at is not None and at >= evaluation.since), 0) for symbol, at in opened.items()]


def load_selection(operations: Operations, run_id: int, limit: int) -> SelectionReport:
    """Load what a run selected and what not.

    Args:
        operations: of the deployment.
        run_id: of the run.
        limit: most rejected ones.

    Raises:
        ConfigurationError: there is no such run, or it has no selection.
    """
    with operations.reading() as connection:
        run = runs.load_run(connection, run_id)
        if run.spec.kind is not RunKind.EVALUATE or run.selection is None or run.state is not RunState.COMPLETE:
            found = f"kind {run.spec.kind}, {run.state}"
            raise ConfigurationError(f"run {run_id}: expected an evaluate run that is complete, found: {found}")
        return read_selection(connection, run.id, run.selection, limit)


def read_selection(connection: Connection, run_id: int, summary: dict[str, Any], limit: int) -> SelectionReport:
    """Load what a run selected and what not.

    Args:
        connection: to Postgres.
        run_id: of the run.
        summary: what is stored with the run; its positions, too, once its details were deleted.
        limit: most rejected ones.
    """
    kept = {name: value for name, value in summary.items() if name != KEPT_POSITIONS}
    selected = summary.get(KEPT_POSITIONS) or listings_runs.list_selected(connection, run_id)
    return SelectionReport(kept, selected, listings_runs.list_rejected(connection, run_id, limit))
