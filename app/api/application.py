"""The application: its routes, its documentation, what it holds while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.api import events, fleet, runs
from app.api.following import Follower, look
from app.api.problems import ProblemDetails, add_handlers
from app.api.recent import Recent
from app.api.tokens import build_guard
from app.operations import Operations
from app.settings import Settings

#: Most bytes of a request: a specification of ten thousand strategies fits. A body is read before its token is known.
MOST_BYTES = 1 << 20

#: Seconds that the figures of the whole hold: counting reads much of the ledger, and they are found by one thread at a
#: time, because the client of Redis is for one.
STATUS_FOR_S = 1.0

DESCRIPTION = """
Starts, watches and steers batch runs, and looks at the fleet.

Every call but `/api/health` wants a header `Authorization: Bearer TOKEN`; a token's role is `read` or `operate`, and
operating includes reading. 401 is no or a wrong token, 403 a token that may only read. Every answer from 400 on, except
413, is a problem of one shape (RFC 9457, `ProblemDetails`); 422 names each field that is wrong. 503 says with
`Retry-After` when to try again.
"""


def create_app(settings: Settings) -> FastAPI:
    """Build the application; nothing connects yet.

    Args:
        settings: with a database and a broker in them.

    Raises:
        ConfigurationError: there are no tokens, and nobody said that this is meant.
    """
    guard = build_guard(settings.api)
    operations = Operations(settings)
    follower = Follower(partial(look, operations), settings.api.streams)
    app = FastAPIOffline(
        title="Candlefleet",
        version=version("candlefleet"),
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url="/api/docs",
        redoc_url=None,
        static_url="/api/docs-assets",
        swagger_ui_oauth2_redirect_url="/api/docs/oauth2-redirect",
        max_body_size=MOST_BYTES,
        lifespan=_while_running,
    )
    app.state.guard, app.state.operations, app.state.follower = guard, operations, follower
    app.state.status = Recent(operations.status, STATUS_FOR_S)
    for router in (runs.router, events.router, fleet.router, fleet.open_router):
        app.include_router(router)
    add_handlers(app)
    _describe_problems(app)
    return app


@asynccontextmanager
async def _while_running(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.follower.close()
    app.state.operations.close()


def _describe_problems(app: FastAPI) -> None:
    """Have OpenAPI describe our problems in place of FastAPI's own."""
    schemas: dict[str, Any] = app.openapi()["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["ProblemDetails"] = problem
