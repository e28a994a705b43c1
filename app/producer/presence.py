"""Presence: a producer's sign of life, from a thread of its own: it goes on while the producer waits for a server."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from sqlalchemy import Engine

from app.errors import StorageUnavailableError
from app.storage.engine import translated
from app.storage.producers import ProducerBeat, forget_producer, save_producer

#: Seconds that the last sign of life may take to be written; a Postgres that does not answer holds up no end.
_END_WITHIN_S = 5.0


def name_of_process() -> str:
    """Return what a producer in this process is called: ``host:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Presence:
    """Writes what a producer says of itself, again and again, and removes it at its end.

    Args:
        engine: of Postgres.
        every_s: seconds between two signs of life.
    """

    def __init__(self, engine: Engine, every_s: float) -> None:
        self._engine = engine
        self._every_s = every_s

    @contextmanager
    def shown(self, describe: Callable[[], ProducerBeat]) -> Iterator[None]:
        """Show a producer for as long as the body runs. Postgres being away changes nothing for the body.

        Args:
            describe: what to say now; called from another thread.
        """
        self._save(describe())
        over = Event()
        thread = Thread(target=self._beat, args=(describe, over), name="presence", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(_END_WITHIN_S)
            self._forget(describe().producer)

    def _beat(self, describe: Callable[[], ProducerBeat], over: Event) -> None:
        while not over.wait(self._every_s):
            self._save(describe())

    def _save(self, beat: ProducerBeat) -> None:
        with suppress(StorageUnavailableError), translated(), self._engine.begin() as connection:
            save_producer(connection, beat)

    def _forget(self, producer: str) -> None:
        with suppress(StorageUnavailableError), translated(), self._engine.begin() as connection:
            forget_producer(connection, producer)
