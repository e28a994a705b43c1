"""A node whose broker goes away: how often it tries, and what it says. One line for each change, none for each try."""

from __future__ import annotations

import logging
import time
from typing import Any

import structlog
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

log = structlog.get_logger()

#: Seconds between two tries to reach Redis: the first, what is added each time, and the most. Celery's own grow to
#: thirty seconds, most of which a fleet would be idle after the outage.
FIRST_TRY_S, LATER_BY_S, LONGEST_S = 0.2, 0.3, 2.0

#: Lines of libraries that say again, or only to a developer, what a line of ours says: logger, and a part of the text.
REPEATED = (
    ("celery.worker.consumer.consumer", "Skipping prefetch count reduction"),
    ("celery.worker.consumer.consumer", "Connection to broker lost"),
    # the message is delivered again, and changes nothing then
    ("celery.worker.request", "Couldn't ack"),
    ("celery.app.trace", "reject requeue"),
    ("psycopg", "error ignored"),
)
_LOGGERS = frozenset(name for name, _ in REPEATED)


def patient(consumer: type[Consumer]) -> type[Consumer]:
    """Derive a Consumer class that tries often and says little while Redis is away."""

    class PatientConsumer(consumer):  # type: ignore[misc]  # Celery ships no types
        """Waits for Redis."""

        _away_since: float | None = None

        def on_connection_error_after_connected(self, exc: Exception) -> None:
            self._miss(exc)
            super().on_connection_error_after_connected(exc)

        def ensure_connected(self, conn: Any) -> Any:
            conn.ensure_connection(
                lambda error, _interval: self._miss(error),
                None,
                interval_start=FIRST_TRY_S,
                interval_step=LATER_BY_S,
                interval_max=LONGEST_S,
                callback=maybe_shutdown,
            )
            self.first_connection_attempt = False
            self._recover()
            return conn

        def _miss(self, error: Exception) -> None:
            if self._away_since is None:
                self._away_since = time.monotonic()
                log.warning("waiting for Redis", to="consume", reason=str(error))

        def _recover(self) -> None:
            if self._away_since is not None:
                log.info("Redis is back", away_s=round(time.monotonic() - self._away_since, 1))
                self._away_since = None

    return PatientConsumer


def leave_out_repeated(record: logging.LogRecord) -> bool:
    """Tell whether a line is worth showing; a filter for a log handler."""
    if record.name not in _LOGGERS:
        return True
    text = record.getMessage()
    return not any(record.name == name and part in text for name, part in REPEATED)


def quieten() -> None:
    """Leave repeated lines out of everything this process logs."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(leave_out_repeated)
