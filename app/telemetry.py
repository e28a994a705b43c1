"""Logging: structlog on stderr, readable lines for people or JSON lines for collectors."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager

import structlog
from structlog.contextvars import bound_contextvars
from structlog.types import EventDict, Processor, WrappedLogger

from app.domain.jobs import job_id
from app.settings import LogSettings

#: Libraries whose routine messages say nothing to an operator.
QUIET = (
    "alembic",
    "kombu",
    "amqp",
    "tornado.access",
    "uvicorn.error",
    "celery.redirected",
    "celery.worker.strategy",
    "celery.app.trace",
)


class _Running:
    """The strategy whose code this process runs now. A slot runs one job at a time, and tells it for every job."""

    strategy_id = 0


def enter(strategy_id: int) -> None:
    """Note whose code runs now, so that its own lines name it; 0 when nobody's does. Costs next to nothing."""
    _Running.strategy_id = strategy_id


def about_dispatch(dispatch_id: int, correlation_id: str) -> AbstractContextManager[None]:
    """Give every line that this thread logs meanwhile, whoever logs it, the ids to follow it by."""
    return bound_contextvars(correlation=correlation_id, dispatch=dispatch_id)


def configure_logging(settings: LogSettings) -> None:
    """Send all logging of this process to stderr, in one form. Called once, at an entry point."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_job,
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


def _name_job(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if _Running.strategy_id:
        event.setdefault("strategy", _Running.strategy_id)
        if "dispatch" in event:
            event.setdefault("job", job_id(event["dispatch"], event["strategy"]))
    return event


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
