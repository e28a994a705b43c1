"""`candlefleet api`: the HTTP API, one process."""

from __future__ import annotations

from typing import Annotated

import typer

from app.api.serving import run_api, with_made_token
from app.cli.output import say
from app.cli.session import settings_with_logging
from app.deployment import Deployment


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on.")] = None,
    make_token: Annotated[
        bool, typer.Option("--make-token", help="If none is set, make one, say it once, keep it in the data folder.")
    ] = False,
) -> None:
    """Serve the HTTP API; its documentation is at /api/docs."""
    wanted = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    with Deployment(settings_with_logging()) as deployment:
        settings = deployment.settings
        settings = settings.model_copy(update={"api": settings.api.model_copy(update=wanted)})
        run_api(with_made_token(settings, say) if make_token else settings)
