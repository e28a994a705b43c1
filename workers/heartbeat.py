"""The heartbeat of a worker node: a thread of its main process that writes what the node is doing."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import psutil
import structlog
from celery.worker import state
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from app.errors import StorageUnavailableError
from app.storage.engine import translated
from app.storage.nodes import NodeBeat, forget_node, save_beat

log = structlog.get_logger()


class Tally:
    """Counts of a node, shared by its slots: made before the fork, in memory that all of them see."""

    def __init__(self) -> None:
        self._processed = multiprocessing.Value("q", 0)
        self._errors = multiprocessing.Value("q", 0)

    def add(self, processed: int, errors: int) -> None:
        """Count jobs that ended, and how many of them did not succeed."""
        with self._processed.get_lock():
            self._processed.value += processed
        if errors:
            with self._errors.get_lock():
                self._errors.value += errors

    @property
    def processed(self) -> int:
        """Jobs ended."""
        return int(self._processed.value)

    @property
    def errors(self) -> int:
        """Jobs ended without success."""
        return int(self._errors.value)


class Heartbeat:
    """Writes one row of `nodes` every few seconds until stopped.

    Args:
        dsn: of Postgres. Every beat opens a connection of its own: the pool forks from this process, and
            a child must not inherit one.
        node: name of the node, as Flower shows it.
        queues: what it consumes.
        slots: returns its number of slots.
        tally: what its slots have done.
        every_s: seconds between two beats.
    """

    def __init__(
        self, dsn: str, *, node: str, queues: Sequence[str], slots: Callable[[], int], tally: Tally, every_s: float
    ) -> None:
        self._engine = create_engine(dsn, poolclass=NullPool, connect_args={"connect_timeout": 5})
        self._node = node
        self._queues = tuple(queues)
        self._slots = slots
        self._tally = tally
        self._every_s = every_s
        self._started_at = datetime.now(UTC)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and remove the node's row: it said goodbye."""
        self._stop.set()
        self._thread.join(timeout=self._every_s)
        try:
            with translated(), self._engine.begin() as connection:
                forget_node(connection, self._node)
        except StorageUnavailableError as error:
            log.warning("node could not say goodbye", reason=str(error))

    def _run(self) -> None:
        while True:
            self._beat()
            if self._stop.wait(self._every_s):
                return

    def _beat(self) -> None:
        try:
            with translated(), self._engine.begin() as connection:
                save_beat(connection, self._look())
        except StorageUnavailableError as error:
            log.warning("heartbeat missed", reason=str(error))

    def _look(self) -> NodeBeat:
        return NodeBeat(
            node=self._node,
            queues=self._queues,
            slots=self._slots(),
            busy=len(state.active_requests),
            processed=self._tally.processed,
            errors=self._tally.errors,
            rss_bytes=_resident_bytes(),
            started_at=self._started_at,
        )


def _resident_bytes() -> int:
    main = psutil.Process()
    total = 0
    for process in [main, *main.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
