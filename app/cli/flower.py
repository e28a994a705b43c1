"""`candlefleet flower`: the fleet in a browser, one process."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.output import say
from app.cli.session import settings_with_logging
from app.deployment import Deployment
from app.flower import run_flower


def flower(
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on.")] = None,
) -> None:
    """Show the fleet in a browser; a password is asked for."""
    with Deployment(settings_with_logging()) as deployment:
        run_flower(deployment.settings, port, say)
