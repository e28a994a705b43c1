"""Logging: structlog on stderr, readable lines for people or JSON lines for collectors."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.types import Processor

from app.settings import LogSettings

#: Libraries whose routine messages say nothing to an operator.
QUIET = (
    "alembic",
    "kombu",
    "amqp",
    "tornado.access",
    "celery.redirected",
    "celery.worker.strategy",
    "celery.app.trace",
)


def configure_logging(settings: LogSettings) -> None:
    """Send all logging of this process to stderr, in one form. Called once, at an entry point."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(settings)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _renderers(settings: LogSettings) -> list[Processor]:
    if settings.json_lines:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # the default prints every frame's variables: pages of them, whatever they hold
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]
