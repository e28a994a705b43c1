"""The heartbeat of a worker node: a thread of its main process that writes what the node is doing."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil
import structlog
from celery.worker import state
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from app.errors import StorageUnavailableError
from app.settings import MOST_SLOTS
from app.storage.engine import translated
from app.storage.nodes import NodeBeat, forget_node, save_beat

log = structlog.get_logger()

#: Seconds past its hard limit after which a chunk counts as stalled: Celery should have killed its slot by then.
OVERDUE_AFTER_S = 5.0

#: Numbers kept for each.
CELLS = 3
#: Strategies suspected at a time, and for how many seconds: by then its own breaker speaks for it.
MOST_SUSPECTS, SUSPECTED_FOR_S = 16, 30


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


@dataclass(frozen=True, slots=True)
class Running:
    """What a slot executes."""

    strategy_id: int
    timeout_s: float
    """Its soft limit."""


class Present:
    """What each slot of a node executes at this moment, so that the main process can tell why it died.

    Made before the fork, in memory that the main process and all slots see; a slot writes only its own cells.
    """

    def __init__(self) -> None:
        # process id, strategy id (0 for none) and soft limit in ms of each slot; no lock: one writer a cell
        self._cells = multiprocessing.Array("q", CELLS * MOST_SLOTS, lock=False)
        self._at = 0
        # strategy id and epoch seconds until which it is suspected; the main process writes, slots read
        self._suspects = multiprocessing.Array("q", 2 * MOST_SUSPECTS, lock=False)
        self._next_suspect = 0

    def suspect(self, strategy_id: int) -> None:
        """Note in the main process that a slot died in a strategy's code, among other jobs."""
        at = 2 * (self._next_suspect % MOST_SUSPECTS)
        self._suspects[at], self._suspects[at + 1] = strategy_id, int(time.time() + SUSPECTED_FOR_S)
        self._next_suspect += 1

    def suspects(self) -> frozenset[int]:
        """Return the strategies that should not share a chunk now: one may take its neighbours' slot down again."""
        cells, now = self._suspects[:], time.time()
        return frozenset(cells[at] for at in range(0, len(cells), 2) if cells[at + 1] > now)

    def open(self, slot: int, pid: int) -> None:
        """Take the cells of a slot, in its process.

        Args:
            slot: its number in the pool, from 0.
            pid: its process id.
        """
        for at in range(0, CELLS * MOST_SLOTS, CELLS):
            if self._cells[at] == pid:  # of a slot that is gone: process ids come back
                self._cells[at] = 0
        self._at = CELLS * slot
        self.enter(0, 0)
        self._cells[self._at] = pid

    def enter(self, strategy_id: int, timeout_ms: int) -> None:
        """Note which strategy this slot runs now, and its soft limit; 0 for none."""
        self._cells[self._at + 2] = timeout_ms
        self._cells[self._at + 1] = strategy_id

    def of(self, pid: int | None) -> Running | None:
        """Return what a slot runs, or ran when it died; None when it was in no strategy's code."""
        cells: list[int] = self._cells[:]
        for at in range(0, len(cells), CELLS):
            if pid and cells[at] == pid:
                return Running(cells[at + 1], cells[at + 2] / 1000) if cells[at + 1] else None
        return None


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
