"""The fleet over HTTP: its state, its catalogue, what is in the ledger, the settings of batch runs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from app.api.problems import documented
from app.api.queries import refuse_unknown_query
from app.api.recent import Recent
from app.api.shapes import MOST_DISPATCH, Limit, Reader, Working
from app.domain.base import UtcDatetime
from app.domain.candles import Timeframe
from app.domain.jobs import OutcomeStatus
from app.domain.strategies import StrategyStatus
from app.settings import BatchSettings
from app.storage import listings
from app.storage import strategies as catalogue

router = APIRouter(prefix="/api", responses=documented(401, 422, 503))
open_router = APIRouter(prefix="/api")

Name = Annotated[str | None, Query(max_length=200)]


class Health(BaseModel):
    """That the API answers."""

    status: str = "ok"


class BatchConfig(BatchSettings):
    """The settings of batch runs in force, and the limits of what may be asked for."""

    most_units: int
    """Most units of one run (`CANDLEFLEET_RUNS__MOST_UNITS`)."""


@open_router.get("/health", tags=["fleet"], dependencies=[Depends(refuse_unknown_query)])
async def health() -> Health:
    """Say that the API answers; needs no token. Whether the fleet is well is told by /api/status."""
    return Health()


@router.get("/batch/config", tags=["runs"])
def show_batch_config(_: Reader, operations: Working) -> BatchConfig:
    """Show the settings of batch runs that are in force: those of `CANDLEFLEET_BATCH__*`."""
    settings = operations.settings
    return BatchConfig(**settings.batch.model_dump(), most_units=settings.runs.most_units)


@router.get("/status", tags=["fleet"])
def show_status(_: Reader, request: Request) -> dict[str, Any]:
    """Show queues, nodes, jobs and latency; a second old at most."""
    recent: Recent[dict[str, Any]] = request.app.state.status
    return recent.get()


@router.get("/strategies", tags=["fleet"])
def list_strategies(_: Reader, operations: Working, status: StrategyStatus | None = None) -> list[dict[str, Any]]:
    """List the strategies of the catalogue."""
    with operations.reading() as connection:
        found = catalogue.load_strategies(connection, status)
    return [{"id": each.id, "revision": each.revision, **each.definition.model_dump(mode="json")} for each in found]


@router.get("/outcomes", tags=["ledger"])
def list_outcomes(
    _: Reader,
    operations: Working,
    dispatch: Annotated[int | None, Query(ge=1, le=MOST_DISPATCH)] = None,
    strategy: Name = None,
    status: OutcomeStatus | None = None,
    symbol: Name = None,
    timeframe: Timeframe | None = None,
    since: UtcDatetime | None = None,
    correlation: Name = None,
    limit: Limit = 20,
) -> list[dict[str, Any]]:
    """List outcomes, newest dispatch first."""
    with operations.reading() as connection:
        return listings.list_outcomes(
            connection,
            limit=limit,
            dispatch=dispatch,
            strategy=strategy,
            status=status,
            symbol=symbol,
            timeframe=timeframe,
            since=since,
            correlation=correlation,
        )


@router.get("/decisions", tags=["ledger"])
def list_decisions(
    _: Reader,
    operations: Working,
    symbol: Name = None,
    timeframe: Timeframe | None = None,
    action: Annotated[int | None, Query(ge=-1, le=1, description="-1 short, 0 flat, 1 long.")] = None,
    since: UtcDatetime | None = None,
    limit: Limit = 20,
) -> list[dict[str, Any]]:
    """List decisions, newest first."""
    with operations.reading() as connection:
        return listings.list_decisions(
            connection, limit=limit, symbol=symbol, timeframe=timeframe, action=action, since=since
        )
