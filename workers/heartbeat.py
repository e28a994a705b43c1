"""The heartbeat of a worker node: a thread of its main process that writes what the node is doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import psutil
import structlog
from celery.worker import state
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from app.errors import StorageUnavailableError
from app.storage.engine import translated
from app.storage.nodes import NodeBeat, forget_node, save_beat
from workers.shared import Tally

log = structlog.get_logger()

#: Seconds past its hard limit after which a chunk counts as stalled: Celery should have killed its slot by then.
OVERDUE_AFTER_S = 5.0


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
        self._missed_since: float | None = None
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
            self._miss(str(error))
        else:
            self._recover()

    def _miss(self, reason: str) -> None:
        # one line for each change, not one for each beat
        if self._missed_since is None:
            self._missed_since = time.monotonic()
            log.warning("waiting for Postgres", to="say that this node lives", reason=reason)

    def _recover(self) -> None:
        if self._missed_since is not None:
            log.info("Postgres is back", away_s=round(time.monotonic() - self._missed_since, 1))
            self._missed_since = None

    def _look(self) -> NodeBeat:
        return NodeBeat(
            node=self._node,
            queues=self._queues,
            slots=self._slots(),
            busy=len(state.active_requests),
            processed=self._tally.processed,
            errors=self._tally.errors,
            events_sent=self._tally.events_sent,
            events_sampled=self._tally.events_sampled,
            events_dropped=self._tally.events_dropped,
            rss_bytes=_resident_bytes(),
            # with those that wait for their time: a retry that nobody seems to hold would be sent again
            held=tuple(held for request in _snapshot(state.requests.values()) for held in chunk_ids(request)),
            overdue=tuple(request.id for request in _snapshot(state.active_requests) if _is_overdue(request)),
            started_at=self._started_at,
        )


def chunk_ids(request: Any) -> list[str]:
    """Return the ids of the chunks that a delivered message carries; its own when it carries none."""
    try:
        return [
            f"{chunk['dispatch']}.{chunk['jobs'][0][0]}+{len(chunk['jobs']) - 1}" for chunk in request.args[0]["chunks"]
        ]
    except (KeyError, IndexError, TypeError):
        return [str(request.id)]


def _snapshot(requests: Iterable[Any]) -> tuple[Any, ...]:
    # Celery changes these in another thread, and what grows cannot be walked
    while True:
        try:
            return tuple(requests)
        except RuntimeError:
            continue


def _is_overdue(request: Any) -> bool:
    limit_s = request.time_limits[0]
    if limit_s is None or request.time_start is None:
        return False
    return bool(time.time() - request.time_start > limit_s + OVERDUE_AFTER_S)


def _resident_bytes() -> int:
    main = psutil.Process()
    total = 0
    for process in [main, *main.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
