"""The life of a slot: what a pool process owns is created after the fork and disposed at its exit."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import billiard.pool
from billiard.process import current_process
from celery import Celery
from sqlalchemy import Connection, Engine, select

from app.broker import Publisher
from app.domain.breakers import BreakerState
from app.domain.decisions import DecisionRules
from app.errors import JobTimeoutError, StorageUnavailableError
from app.settings import Settings
from app.storage.engine import build_engine
from app.storage.schema import attempts, breakers
from app.strategies.registry import Registry
from app.telemetry import enter
from workers.execution import Executor
from workers.heartbeat import Present
from workers.runtime import limits
from workers.runtime.store import SlotStore
from workers.runtime.strategies import RuntimeCache
from workers.runtime.windows import WindowCache

#: Strategy instances a slot keeps; far above what one fleet runs, so that it only bounds a leak.
MOST_STRATEGIES = 2000

#: Tenths of a second for which a slot that ends waits until the main process has read its last results. billiard's 30 s
#: are waited in full when that process is waiting for the slot; what is not acknowledged is delivered again.
LAST_RESULTS_READ_WITHIN = 20

#: Part of a chunk's grace after its strategies' own time that one wait for Postgres may take.
SHARE_OF_GRACE = 0.8

T = TypeVar("T")


@contextmanager
def interrupted(bound_s: float) -> Iterator[None]:
    """Interrupt the body after so long, and again and again: a driver that tidies up waits for the server once more.

    Raises:
        JobTimeoutError: the body took longer.
    """
    signal.setitimer(signal.ITIMER_REAL, bound_s, bound_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class GuardingStore(SlotStore):
    """A slot's store that waits for Postgres within a bound, and knows which strategies must not run.

    Args:
        engine: of the slot.
        rules: how decisions are made.
        bound_s: longest wait for one answer. A server that neither answers nor refuses would hold the slot until its
            hard limit, and strategies would be blamed for it.
    """

    def __init__(self, engine: Engine, rules: DecisionRules, bound_s: float) -> None:
        super().__init__(engine, rules)
        self._bound_s = bound_s

    def load_stopped(self) -> frozenset[int]:
        """Load the strategies whose breaker is open; one that is half open has a probe on its way."""
        query = select(breakers.c.strategy_id).where(breakers.c.state == BreakerState.OPEN.value)
        return self._with(lambda connection: frozenset(connection.execute(query).scalars()))

    def load_tried(self, dispatch_id: int) -> frozenset[int]:
        """Load the strategies that have failed at a dispatch and will be, or were, tried again."""
        query = select(attempts.c.strategy_id).where(attempts.c.dispatch_id == dispatch_id)
        return self._with(lambda connection: frozenset(connection.execute(query).scalars()))

    def _with(self, action: Callable[[Connection], T]) -> T:
        try:
            with interrupted(self._bound_s):
                return super()._with(action)
        except JobTimeoutError as error:
            self._forget()
            raise StorageUnavailableError(f"Postgres did not answer within {self._bound_s:g} s") from error


@dataclass(frozen=True, slots=True)
class Slot:
    """What one pool process owns."""

    name: str
    executor: Executor
    store: SlotStore
    engine: Engine
    publisher: Publisher

    def close(self) -> None:
        """Give everything back; at the exit of the process."""
        self.store.close()
        self.publisher.close()
        self.engine.dispose()


def _both(note: Callable[[int, int], None], tell: Callable[[int], None]) -> Callable[[int, int], None]:
    """Note whose code runs for the main process, and tell the log."""

    def noted(strategy_id: int, timeout_ms: int) -> None:
        note(strategy_id, timeout_ms)
        tell(strategy_id)

    return noted


def open_slot(app: Celery, settings: Settings, present: Present) -> Slot:
    """Build what one pool process needs; connections open with their first use.

    Args:
        app: the application.
        settings: of this node.
        present: shared with the main process.
    """
    present.open(getattr(current_process(), "index", 0), os.getpid())
    name = f"{socket.gethostname()}:{os.getpid()}"
    limits.install()
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LAST_RESULTS_READ_WITHIN
    engine = build_engine(settings.database_dsn, name=f"candlefleet slot {name}", pool_size=1)
    store = GuardingStore(engine, settings.rules, settings.worker.hard_grace_s * SHARE_OF_GRACE)
    publisher = Publisher(app, settings.dispatch.jobs_in_chunk)
    executor = Executor(
        windows=WindowCache(store.load_rows, length=settings.worker.window, most_series=settings.worker.cached_series),
        runtimes=RuntimeCache(store.load_revisions, Registry(settings.strategies.modules), MOST_STRATEGIES),
        land_all=store.land_all,
        load_ended=store.load_ended,
        publish=publisher.publish,
        settings=settings.worker,
        worker=name,
        load_stopped=store.load_stopped,
        load_tried=store.load_tried,
        enter=_both(present.enter, enter),
        suspects=present.suspects,
    )
    return Slot(name, executor, store, engine, publisher)
