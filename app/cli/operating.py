"""How an operator's command gets at the deployment: embedded servers, if none are named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.cli.session import settings_with_logging
from app.deployment import Deployment
from app.operations import Operations


@contextmanager
def operating() -> Iterator[Operations]:
    """Open the deployment for one command.

    Raises:
        ConfigurationError: a setting is wrong, or an embedded server does not start.
    """
    with Deployment(settings_with_logging()) as deployment:
        operations = Operations(deployment.settings)
        try:
            yield operations
        finally:
            operations.close()
