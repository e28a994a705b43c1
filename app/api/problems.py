"""What goes wrong, as HTTP says it: one shape (RFC 9457) and one table from the error tree to status codes."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException

from app.errors import (
    CandlefleetError,
    ConfigurationError,
    PermanentError,
    RejectedStrategyError,
    SpecificationError,
    TransientError,
    UnknownDispatchError,
    UnknownRunError,
    UnknownStrategyError,
    WrongStateError,
)
from app.runs.specification import explained

log = structlog.get_logger()

#: Seconds after which to try again when the error does not say.
RETRY_AFTER_S = 5.0

#: The first that an error is an instance of decides.
STATUSES: tuple[tuple[type[CandlefleetError], HTTPStatus], ...] = (
    (UnknownRunError, HTTPStatus.NOT_FOUND),
    (UnknownStrategyError, HTTPStatus.NOT_FOUND),
    (UnknownDispatchError, HTTPStatus.NOT_FOUND),
    (WrongStateError, HTTPStatus.CONFLICT),
    (RejectedStrategyError, HTTPStatus.CONFLICT),
    (ConfigurationError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (PermanentError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (TransientError, HTTPStatus.SERVICE_UNAVAILABLE),
)


class FieldProblem(BaseModel):
    """One thing that is wrong with what was sent."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Where: `grid.fast`, or several separated by commas; `limit` of a query; empty when it is the whole."""
    problem: str
    """What was expected and what was found."""


class ProblemDetails(BaseModel):
    """What went wrong, as RFC 9457 shapes it: every answer from 400 on is one."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "example": {
                "title": "Unprocessable Content",
                "status": 422,
                "detail": "nothing was started, because of 1 problem",
                "errors": [{"field": "from, to", "problem": "expected from before to, found ..."}],
            }
        },
    )

    title: str
    """Of the status code."""
    status: int
    """The HTTP status code."""
    detail: str
    """What happened, for people."""
    errors: list[FieldProblem] = []
    """Everything that is wrong with what was sent."""


class ProblemResponse(JSONResponse):
    """An answer from 400 on."""

    media_type = "application/problem+json"


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the problems of an endpoint."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def add_handlers(app: FastAPI) -> None:
    """Make an application answer every error as a problem."""
    app.add_exception_handler(CandlefleetError, _tell_expected)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(DataError, _tell_unstorable)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(Exception, _tell_unexpected)


def build_problem(
    status: int, detail: str, problems: list[FieldProblem] | None = None, headers: dict[str, str] | None = None
) -> ProblemResponse:
    """Build the answer to what went wrong."""
    body = ProblemDetails(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=problems or [])
    return ProblemResponse(body.model_dump(), status, headers)


async def _tell_expected(_request: Request, error: Exception) -> ProblemResponse:
    if isinstance(error, SpecificationError):
        return _refuse(error.problems)
    status = next((code for kind, code in STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {}
    if isinstance(error, TransientError):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s or RETRY_AFTER_S))
        log.warning("the API cannot answer now", error=str(error))
    return build_problem(status, str(error), headers=headers)


async def _tell_invalid(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what this handler was added for
    # the only body there is is a run's specification: its problems read as on the command line
    return _refuse(explained({**item, "loc": _place(item)} for item in error.errors()))


def _place(item: dict[str, Any]) -> tuple[Any, ...]:
    """Return where a problem is, without the part of the request, unless the whole body is no specification."""
    within: tuple[Any, ...] = item["loc"][1:]
    if item["type"] == "json_invalid":
        return ("body",)
    # what is wrong between fields names them itself
    return within or (() if item["type"] == "value_error" else ("body",))


async def _tell_unstorable(request: Request, error: Exception) -> ProblemResponse:
    named = [name for name, value in request.query_params.items() if "\0" in value]
    if named:
        return _refuse([f"{name}: expected text without NUL" for name in named])
    reason = str(getattr(error, "orig", error)).splitlines()[0]
    return build_problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"a value that Postgres cannot store: {reason}")


async def _tell_http(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what this handler was added for
    return build_problem(error.status_code, error.detail, headers=dict(error.headers or {}))


async def _tell_unexpected(_request: Request, _error: Exception) -> ProblemResponse:
    # the server logs the traceback; whoever asked learns nothing of our insides
    return build_problem(HTTPStatus.INTERNAL_SERVER_ERROR, "an error of Candlefleet itself: its log says more")


def _refuse(problems: list[str] | tuple[str, ...]) -> ProblemResponse:
    found = [_split(each) for each in problems]
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    return build_problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"nothing was done, because of {count}", found)


def _split(problem: str) -> FieldProblem:
    field, colon, text = problem.partition(": ")
    return FieldProblem(field=field, problem=text) if colon else FieldProblem(field="", problem=problem)
