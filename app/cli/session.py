"""What every command begins with: settings, logging, signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from app.settings import Settings, load_settings
from app.telemetry import configure_logging


def settings_with_logging() -> Settings:
    """Load the settings and set logging up.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings = load_settings()
    configure_logging(settings.log)
    return settings


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """Hand out an event that the first SIGINT or SIGTERM sets; a second one ends the process at once."""
    stop = Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
