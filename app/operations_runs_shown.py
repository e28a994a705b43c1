"""Batch runs as plain values: what the command line prints as JSON and the API answers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from app.domain.runs import ENDED, RunKind, UnitState
from app.errors import ConfigurationError, WrongStateError
from app.operations_estimate import Estimate
from app.runs.planning import Plan
from app.storage import listings_runs, runs
from app.storage.listings_runs import list_evaluations
from app.storage.run_deletion import is_trimmed
from app.storage.runs import Progress, Run


def describe_run(run: Run, progress: Progress) -> dict[str, Any]:
    """Describe a run and how far it is. Plain JSON values and datetimes."""
    spec = run.spec
    return {
        "id": run.id,
        "kind": spec.kind.value,
        "key": run.key,
        "strategies": list(spec.strategies),
        "symbols": list(spec.symbols),
        "timeframe": spec.timeframe.value,
        **describe_progress(run, progress),
        "warnings": list(run.warnings),
        "selection": run.selection,
        "validation": run.validation,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
    }


def describe_progress(run: Run, progress: Progress) -> dict[str, Any]:
    """Describe how far a run is. Plain JSON values."""
    return {
        "state": progress.state.value,
        "units": run.units,
        **progress.units,
        "ended": progress.ended,
        "candles": run.candles,
        "candles_done": progress.candles,
        "slots": progress.slots,
        "work_s": round(progress.elapsed_ms / 1000, 3),
        "cpu_s": round(progress.cpu_ms / 1000, 3),
        "memory_mb": progress.memory_mb,
        "trimmed": progress.is_trimmed,
    }


def list_units(
    connection: Connection, run: Run, state: UnitState | None, limit: int, offset: int = 0
) -> list[dict[str, Any]]:
    """List units of a run, of either kind: the best return, or the best edge, first."""
    if run.spec.kind is RunKind.EVALUATE:
        return list_evaluations(connection, run.id, state, limit, offset)
    return runs.list_units(connection, run.id, state, limit, offset)


def list_trades(connection: Connection, run_id: int, unit: int, limit: int, offset: int = 0) -> list[dict[str, Any]]:
    """List the closed trades of a backtest's unit, the oldest first.

    Raises:
        UnknownRunError: there is no such run or unit.
        ConfigurationError: the run is none that trades.
        WrongStateError: its trades were deleted.
    """
    run = runs.load_run(connection, run_id)
    if run.spec.kind is RunKind.EVALUATE:
        found = "expected a backtest, found an evaluate run, which has no trades"
        raise ConfigurationError(f"run {run_id}: {found}: 'candlefleet runs selection {run_id}' shows its positions")
    if run.state in ENDED and is_trimmed(connection, run_id):
        raise WrongStateError(f"run {run_id}: its trades were deleted with its details: start it anew to see them")
    return listings_runs.list_trades(connection, run_id, unit, limit, offset)


def describe_plan(planned: Plan, cost: Estimate) -> dict[str, Any]:
    """Describe what a run would do and cost. Plain JSON values."""
    return {
        "units": len(planned.units),
        "variants": len(planned.variants),
        "symbols": len(planned.series),
        "candles": planned.candles,
        **cost._asdict(),
        "warnings": list(planned.warnings),
    }
