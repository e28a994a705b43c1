"""What the API takes and answers, as OpenAPI describes it. What is not described here is passed on as it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Security
from pydantic import BaseModel, ConfigDict, GetPydanticSchema, ValidatorFunctionWrapHandler
from pydantic_core import core_schema

from app.api.queries import refuse_unknown_query
from app.api.tokens import Caller, may_operate, may_read
from app.domain.runs import RunKind, RunSpec, RunState
from app.operations import Operations
from app.runs.specification import Draft, build_draft

#: Largest number of a run, a Postgres integer.
MOST_RUN = 2**31 - 1

#: Largest number of a dispatch, a Postgres bigint.
MOST_DISPATCH = 2**63 - 1

RunId = Annotated[int, Path(ge=1, le=MOST_RUN, description="Number of the run.")]
UnitNumber = Annotated[int, Path(ge=0, le=MOST_RUN, description="Number of the unit in its run.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most rows.")]

#: Rows that are left out before those that are answered: lists have a stable order.
Offset = Annotated[int, Query(ge=0, le=MOST_RUN, description="Rows to leave out before these.")]


async def _reader(request: Request, caller: Annotated[Caller, Security(may_read)]) -> Caller:
    refuse_unknown_query(request)
    return caller


async def _operator(request: Request, caller: Annotated[Caller, Security(may_operate)]) -> Caller:
    refuse_unknown_query(request)
    return caller


Reader = Annotated[Caller, Security(_reader)]
Operator = Annotated[Caller, Security(_operator)]


def _draft(document: Any, validate: ValidatorFunctionWrapHandler) -> Draft:
    # all that is wrong is told at once, with what only planning finds: so a wrong specification gets that far
    return build_draft(document) if isinstance(document, Mapping) else validate(document)


#: A specification, right or wrong; described as `RunSpec`.
Drafted = Annotated[
    Draft,
    GetPydanticSchema(
        lambda _, handler: core_schema.no_info_wrap_validator_function(_draft, handler.generate_schema(RunSpec))
    ),
]


def _operations(request: Request) -> Operations:
    operations: Operations = request.app.state.operations
    return operations


Working = Annotated[Operations, Depends(_operations)]


class Shape(BaseModel):
    """Base of what the API answers."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="allow")


class ProgressShape(Shape):
    """How far a run is."""

    state: RunState
    units: int
    """All of them; ended ones are no longer pending."""
    pending: int
    """Not executed yet, or executed now."""
    succeeded: int
    failed: int
    cancelled: int
    ended: int
    candles: int
    """Of all units together."""
    candles_done: int
    """Of units that succeeded."""
    slots: int
    """That work on it now."""
    work_s: float
    """Seconds that slots spent on units that ended."""
    cpu_s: float
    """The same in CPU time."""
    memory_mb: int
    """Most that a slot held when it ended a unit; what slots share is counted in proportion."""
    trimmed: bool
    """Whether it has ended, and its details were deleted since: signals, trades, curves, answers."""


class AskedShape(Shape):
    """What a run was asked for."""

    id: int
    kind: RunKind
    key: str | None
    """The idempotency key it was started with."""
    strategies: list[str]
    symbols: list[str]
    """Patterns, as they were asked for."""
    timeframe: str


class RunShape(ProgressShape, AskedShape):
    """A run and how far it is."""

    warnings: list[str]
    created_at: datetime
    finished_at: datetime | None


class PlanShape(Shape):
    """What a run would do and cost; nothing was started."""

    units: int
    variants: int
    """Strategies and params."""
    symbols: int
    candles: int
    """Of all units together."""
    work_s: float | None
    """Seconds of slots, all together; null when one of its strategies never ran."""
    slots: int
    """That serve runs now."""
    elapsed_s: float | None
    """Seconds with these; null without any."""
    unknown: list[str]
    """Implementations that never ran."""
    warnings: list[str]


class UnitShape(Shape):
    """One strategy with one set of params on one symbol; of an evaluate run with what it said of the latest candle."""

    number: int
    strategy: str
    params: dict[str, Any]
    symbol: str
    state: str
    attempts: int | None
    candles: int | None = None
    elapsed_ms: float | None = None
    memory_mb: int | None = None
    worker: str | None = None
    metrics: dict[str, Any] | None = None
    open_time: datetime | None = None
    action: int | None = None
    strength: float | None = None
    edge_percent: float | None = None
    price: float | None = None
    error_class: str | None
    error: str | None


class TradeShape(Shape):
    """A closed position of a unit; prices, fees and profit in quote currency."""

    number: int
    opened_at: datetime
    """Open time of the candle at whose open it was entered."""
    closed_at: datetime
    """Open time of the candle in which it ended."""
    side: int
    """-1 short, 1 long."""
    quantity: float
    entry_price: float
    exit_price: float
    fees: float
    profit: float
    """After fees."""
    reason: str


class SelectionShape(Shape):
    """What an evaluate run selected and what not, the best edge first."""

    summary: dict[str, Any]
    selected: list[dict[str, Any]]
    rejected: list[dict[str, Any]]


class ReportForm(StrEnum):
    """How a report is told."""

    JSON = "json"
    HTML = "html"
    CSV = "csv"


class RetriedShape(Shape):
    """How many failed units are executed again."""

    units: int
