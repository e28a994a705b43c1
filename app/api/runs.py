"""Batch runs over HTTP: started, looked at, steered."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Body, Header, Query, Response, status
from fastapi.responses import HTMLResponse, PlainTextResponse

from app import operations_runs_shown as shown
from app.api.problems import documented
from app.api.shapes import (
    Drafted,
    Limit,
    Offset,
    Operator,
    PlanShape,
    Reader,
    ReportForm,
    RetriedShape,
    RunId,
    RunShape,
    SelectionShape,
    TradeShape,
    UnitNumber,
    UnitShape,
    Working,
)
from app.api.tokens import Caller
from app.domain.runs import RunSpec, UnitState
from app.errors import SpecificationError
from app.operations import Operations
from app.operations_deletion import delete
from app.operations_estimate import estimate
from app.operations_evaluations import load_selection
from app.operations_report import build_report
from app.operations_runs import (
    FILES,
    cancel,
    load,
    load_newest,
    pause,
    plan,
    require_sound,
    resume,
    retry_failed,
    start,
)
from app.operations_runs_shown import describe_plan, describe_run
from app.runs.report.document import Document
from app.runs.report.html import to_html
from app.runs.report.table import to_csv
from app.runs.specification import Draft
from app.storage import runs
from app.storage.runs import dump_spec

log = structlog.get_logger()

router = APIRouter(prefix="/api/runs", tags=["runs"], responses=documented(401, 404, 422, 503))

#: Shown by OpenAPI.
EXAMPLES: Any = {
    "grid": {
        "summary": "A backtest of two values of a param on every stored series",
        "value": {
            "strategies": ["ema-cross"],
            "timeframe": "1h",
            "from": "2021-07-01T00:00Z",
            "to": "2021-12-31T00:00Z",
            "grid": {"fast": [8, 12], "slow": [26]},
            "key": "ema-2021-h2",
        },
    },
}

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same as `key` in the body: a start that is repeated answers with the run it started.",
    ),
]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    response_model=RunShape | PlanShape,
    responses={
        200: {"description": "The run that was started with this key before; or, of a dry run, the plan."},
        **documented(403),
    },
)
def start_run(
    draft: Annotated[Drafted, Body(openapi_examples=EXAMPLES)],
    caller: Operator,
    operations: Working,
    response: Response,
    key: Key = None,
    dry_run: Annotated[bool, Query(description="Only say what it would do and cost.")] = False,
) -> dict[str, Any]:
    """Start a run, or say everything that is wrong with it.

    A start with the key of an earlier one answers that run with 200; 422 if its specification was another.
    """
    wanted = _with_key(require_sound(operations, _without_files(draft)), key)
    if dry_run:
        response.status_code = status.HTTP_200_OK
        planned = plan(operations, wanted)
        return describe_plan(planned, estimate(operations, wanted, planned))
    started = start(operations, wanted)
    response.headers["Location"] = f"/api/runs/{started.run.id}"
    if started.is_new:
        log.info("a run was started", run=started.run.id, by=caller.name, units=started.run.units)
    else:
        response.status_code = status.HTTP_200_OK
    return describe_run(*load(operations, started.run.id))


@router.get("", response_model=list[RunShape])
def list_runs(_: Reader, operations: Working, limit: Limit = 20, offset: Offset = 0) -> list[dict[str, Any]]:
    """List runs, the newest first."""
    return [describe_run(*each) for each in load_newest(operations, limit, offset)]


@router.get("/{run}")
def show_run(run: RunId, _: Reader, operations: Working) -> RunShape:
    """Show a run, how far it is, and its specification as `spec`."""
    found, progress = load(operations, run)
    return RunShape(**describe_run(found, progress), spec=dump_spec(found.spec))


@router.get("/{run}/units", response_model=list[UnitShape])
def list_units(
    run: RunId, _: Reader, operations: Working, state: UnitState | None = None, limit: Limit = 100, offset: Offset = 0
) -> list[dict[str, Any]]:
    """List units of a run, the best return first."""
    with operations.reading() as connection:
        return shown.list_units(connection, runs.load_run(connection, run), state, limit, offset)


@router.get("/{run}/units/{unit}/trades", response_model=list[TradeShape], responses=documented(409))
def list_trades(
    run: RunId, unit: UnitNumber, _: Reader, operations: Working, limit: Limit = 100, offset: Offset = 0
) -> list[dict[str, Any]]:
    """List the closed trades of a backtest's unit, the oldest first; 409 when they were deleted."""
    with operations.reading() as connection:
        return shown.list_trades(connection, run, unit, limit, offset)


@router.get("/{run}/selection")
def show_selection(run: RunId, _: Reader, operations: Working, limit: Limit = 100) -> SelectionShape:
    """Show what an evaluate run that is complete selected, and what not and why."""
    return SelectionShape(**load_selection(operations, run, limit)._asdict())


@router.get("/{run}/report", response_model=Document, responses={200: {"content": {"text/html": {}, "text/csv": {}}}})
def show_report(
    run: RunId, _: Reader, operations: Working, form: Annotated[ReportForm, Query(alias="format")] = ReportForm.JSON
) -> Response | Document:
    """Report on a run: ranking with deflated Sharpe ratios, curves, selection, data, versions."""
    document = build_report(operations, run)
    if form is ReportForm.HTML:
        return HTMLResponse(to_html(document))
    if form is ReportForm.CSV:
        return PlainTextResponse(to_csv(document), media_type="text/csv")
    return document


@router.post("/{run}/pause", responses=documented(403, 409))
def pause_run(run: RunId, caller: Operator, operations: Working) -> RunShape:
    """Stop a run's work within a second; what is done is kept. Safe to repeat."""
    pause(operations, run)
    return _steered(operations, run, "paused", caller)


@router.post("/{run}/resume", responses=documented(403, 409))
def resume_run(run: RunId, caller: Operator, operations: Working) -> RunShape:
    """Let a paused run go on. Safe to repeat."""
    resume(operations, run)
    return _steered(operations, run, "resumed", caller)


@router.post("/{run}/cancel", responses=documented(403, 409))
def cancel_run(run: RunId, caller: Operator, operations: Working) -> RunShape:
    """End a run: what is done is kept, what is not done never counts. Safe to repeat."""
    cancel(operations, run)
    return _steered(operations, run, "cancelled", caller)


@router.delete(
    "/{run}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response, responses=documented(403, 409)
)
def delete_run(run: RunId, caller: Operator, operations: Working) -> None:
    """Delete a run that has ended and all it left behind; its units no longer count as trials of later runs.

    One that has not ended answers 409: cancel it first. Safe to repeat, also after a request that was cut off.
    """
    delete(operations, run)
    log.info("a run was deleted", run=run, by=caller.name)


@router.post("/{run}/retry", responses=documented(403, 409))
def retry_run(run: RunId, caller: Operator, operations: Working) -> RetriedShape:
    """Execute the failed units of a run again, also when it has ended."""
    count = retry_failed(operations, run)
    log.info("a run's failed units are tried again", run=run, by=caller.name, units=count)
    return RetriedShape(units=count)


def _with_key(spec: RunSpec, key: str | None) -> RunSpec:
    if key is None or key == spec.key:
        return spec
    if spec.key is not None:
        raise SpecificationError("request", [f"key: expected that of the header Idempotency-Key, found {spec.key!r}"])
    return spec.model_copy(update={"key": key})


def _without_files(draft: Draft) -> Draft:
    # they would be read on the server, and what is wrong with them told to whoever asks
    files = [name for name in draft.spec.strategies if name.endswith(FILES)] if draft.spec else []
    if draft.spec is None or not files:
        return draft
    problems = [f"strategies: expected names in the catalogue, found the file {name!r}" for name in files]
    rest = tuple(name for name in draft.spec.strategies if name not in files)
    spec = draft.spec.model_copy(update={"strategies": rest})
    return replace(draft, spec=spec, problems=(*draft.problems, *problems))


def _steered(operations: Operations, run: int, what: str, caller: Caller) -> RunShape:
    log.info(f"a run was {what}", run=run, by=caller.name)
    return RunShape(**describe_run(*load(operations, run)))
