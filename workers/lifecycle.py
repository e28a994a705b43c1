"""The life of a slot: what a pool process owns is created after the fork and disposed at its exit."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import billiard.pool
from billiard.process import current_process
from celery import Celery
from psycopg import Connection as DriverConnection
from sqlalchemy import Engine

from app.broker import Publisher
from app.domain.candles import Timeframe
from app.settings import Settings
from app.storage.engine import build_engine, driver_of
from app.storage.ranges import load_range
from app.storage.units import load_variant
from app.strategies.bars import Bars
from app.strategies.formulas import guard_talib
from app.strategies.registry import Registry
from app.telemetry import enter
from workers.batch import BatchWorker
from workers.events import JobEvents
from workers.execution import Executor
from workers.runtime import memory
from workers.runtime.limits import clock
from workers.runtime.positions import PositionKeeper
from workers.runtime.spans import SpanCache, VariantCache
from workers.runtime.store import SlotStore
from workers.runtime.strategies import RuntimeCache
from workers.runtime.windows import WindowCache
from workers.sending import EventSender
from workers.shared import Shared, Tally

T = TypeVar("T")

#: Tenths of a second for which a slot that ends waits until the main process has read its last results. billiard's 30 s
#: are waited in full when that process is waiting for the slot; what is not acknowledged is delivered again.
LAST_RESULTS_READ_WITHIN = 20

#: Part of a chunk's grace after its strategies' own time that one wait for Postgres may take.
SHARE_OF_GRACE = 0.8


@dataclass(frozen=True, slots=True)
class Slot:
    """What one pool process owns."""

    name: str
    executor: Executor
    runtimes: RuntimeCache
    store: SlotStore
    engine: Engine
    publisher: Publisher
    events: JobEvents | None
    """None: nobody is told of single jobs."""
    batch: BatchWorker
    settings: Settings

    def close(self) -> None:
        """Give everything back; at the exit of the process."""
        if self.events is not None:
            self.events.close()
        self.runtimes.close()
        self.store.close()
        self.publisher.close()
        self.engine.dispose()


def _both(note: Callable[[int, int], None], tell: Callable[[int], None]) -> Callable[[int, int], None]:
    """Note whose code runs for the main process, and tell the log."""

    def noted(strategy_id: int, timeout_ms: int) -> None:
        note(strategy_id, timeout_ms)
        tell(strategy_id)

    return noted


def open_slot(app: Celery, settings: Settings, shared: Shared) -> Slot:
    """Build what one pool process needs; connections open with their first use.

    Args:
        app: the application.
        settings: of this node.
        shared: with the main process.
    """
    shared.open(getattr(current_process(), "index", 0), os.getpid())
    name = f"{socket.gethostname()}:{os.getpid()}"
    clock.install()
    memory.use_one_arena()
    guard_talib()
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LAST_RESULTS_READ_WITHIN
    if memory.ENFORCES_MEMORY:
        # billiard asks for the most a slot ever had: one job that took much and gave it back would end its slot
        billiard.pool.mem_rss = memory.resident_kib
    engine = build_engine(settings.database_dsn, name=f"candlefleet slot {name}", pool_size=1, by_key=True)
    store = SlotStore(engine, settings.rules, settings.worker.hard_grace_s * SHARE_OF_GRACE)
    publisher = Publisher(app, settings.dispatch.room)
    events = _open_events(app, settings, shared) if settings.metrics else None
    registry, most = Registry(settings.strategies.modules), settings.worker.cached_strategies
    runtimes = RuntimeCache(store.load_revisions, registry, most, store.load_retired)
    executor = Executor(
        windows=WindowCache(store.load_rows, length=settings.worker.window, most_series=settings.worker.cached_series),
        runtimes=runtimes,
        land_all=store.land_all,
        load_ended=store.load_ended,
        publish=publisher.publish,
        settings=settings.worker,
        worker=name,
        load_stopped=store.load_stopped,
        load_tried=store.load_tried,
        enter=_both(shared.present.enter, enter),
        suspects=shared.present.suspects,
        is_revoked=shared.revoked.has,
        begin=events.begin if events else _tell_nobody,
        tell=events.land if events else _tell_nobody,
        positions=PositionKeeper(store.within, settings.risk.max_open_percent, settings.worker.cached_series),
    )
    batch = _open_batch(store, settings, name, shared.tally)
    return Slot(name, executor, runtimes, store, engine, publisher, events, batch, settings)


def _open_batch(store: SlotStore, settings: Settings, name: str, tally: Tally) -> BatchWorker:
    def within(action: Callable[[DriverConnection[Any]], T]) -> T:
        return store.within(lambda connection: action(driver_of(connection)))

    def load(symbol: str, timeframe: Timeframe, since: datetime, until: datetime, before: int) -> Bars:
        return within(lambda driver: load_range(driver, symbol, timeframe, since=since, until=until, before=before))

    runs = settings.runs
    spans = SpanCache(load, most_candles=runs.cached_candles, cached_bytes=runs.cached_mb << 20)
    registry = Registry(settings.strategies.modules)
    variants = VariantCache(lambda run, number: within(lambda driver: load_variant(driver, run, number)), registry)
    return BatchWorker(within, spans, variants, name, tally.add)


def _tell_nobody(*_: object) -> None:
    pass


def _open_events(app: Celery, settings: Settings, shared: Shared) -> JobEvents:
    sender = EventSender(app)
    events = JobEvents(sender.send, sender.close, settings.events, shared.tally, shared.present.running)
    events.start()
    return events
