"""What `celery -A workers.main worker` loads: the composition root of a worker node.

The main process consumes and counts, and never touches what its slots own: each slot builds that for
itself after the fork.
"""

from __future__ import annotations

import signal
from collections.abc import Collection
from typing import Any

from celery import Celery
from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from app.broker import BATCH_QUEUE, CONTROL_QUEUE, QUEUES, Publisher, create_celery, queue_weights
from app.deployment import Deployment
from app.domain.costs import Room
from app.processes import die_with_parent
from app.settings import Settings, load_settings
from app.telemetry import configure_logging
from workers import pool
from workers.heartbeat import Heartbeat
from workers.letters import build_consumer
from workers.lifecycle import Slot, open_slot
from workers.reconnect import patient, quieten
from workers.requests import NoticeDeaths, Surroundings, build_request, hear_revocations
from workers.runtime.memory import say_if_memory_is_free
from workers.runtime.priority import give_way
from workers.shared import Shared
from workers.shutdown import Shutdown, install
from workers.tasks import register


class Node:
    """One worker node: its settings, its application, and in a slot what the slot owns."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_celery(settings)
        self.shared = Shared()
        self._slot: Slot | None = None
        self._heartbeat: Heartbeat | None = None
        # the jobs of a dead slot have waited for their turn once already
        self._publisher = Publisher(self.app, Room(1), queue=CONTROL_QUEUE)
        self._shutdown = Shutdown(settings.worker.shutdown_s)
        around = Surroundings(
            publisher=lambda: self._publisher,
            is_handing_back=lambda: self._shutdown.is_handing_back,
            present=self.shared.present,
            hard_grace_s=settings.worker.hard_grace_s,
        )
        register(self.app, self.slot, self.shared.tally, build_request(around))
        hear_revocations(self.shared.revoked)
        self.app.steps["worker"].add(NoticeDeaths)
        install(self.app)
        pool.install(self.app, queue_weights(settings))
        self.app.conf.worker_consumer = patient(build_consumer(lambda: self._publisher))

    def slot(self) -> Slot:
        """Return what this process owns; built with the first call, which the pool makes after the fork."""
        if self._slot is None:
            self._slot = open_slot(self.app, self.settings, self.shared)
        return self._slot

    def open_slot(self, **_: Any) -> None:
        """A pool process starts."""
        die_with_parent(signal.SIGKILL)
        self._keep_logging()
        if is_for_runs_only(self.app.amqp.queues.consume_from):
            give_way(self.settings.runs.nice)
        self._slot = open_slot(self.app, self.settings, self.shared)

    def close_slot(self, **_: Any) -> None:
        """A pool process ends."""
        if self._slot is not None:
            self._slot.close()

    def start_heartbeat(self, sender: Any, **_: Any) -> None:
        """The node consumes."""
        say_if_memory_is_free()
        self._heartbeat = Heartbeat(
            self.settings.database_dsn,
            node=sender.hostname,
            queues=[queue.name for queue in sender.task_consumer.queues],
            slots=lambda: count_slots(sender.pool),
            tally=self.shared.tally,
            every_s=self.settings.worker.heartbeat_s,
        )
        self._heartbeat.start()

    def stop_heartbeat(self, **_: Any) -> None:
        """The node is shutting down."""
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def connect_signals(self) -> None:
        """Hook into Celery."""
        setup_logging.connect(self._keep_logging, weak=False)
        worker_process_init.connect(self.open_slot, weak=False)
        worker_process_shutdown.connect(self.close_slot, weak=False)
        worker_ready.connect(self.start_heartbeat, weak=False)
        worker_ready.connect(self._shutdown.watch, weak=False)
        worker_shutting_down.connect(self._shutdown.ask, weak=False)
        worker_shutdown.connect(self.stop_heartbeat, weak=False)

    def _keep_logging(self, **_: Any) -> None:
        # having a receiver keeps Celery from configuring logging its own way
        configure_logging(self.settings.log)
        quieten()


def count_slots(pool: Any) -> int:
    """Return how many slots Celery's pool has; none once it has ended and the node is about to say goodbye."""
    try:
        return int(pool.num_processes)
    except AttributeError:  # of the pool inside, which it forgets when it stops
        return 0


def is_for_runs_only(queues: Collection[str]) -> bool:
    """Tell whether a node of these queues serves batch runs and no live candle."""
    return BATCH_QUEUE in queues and not set(QUEUES).intersection(queues)


def build_app() -> Celery:
    """Build the application of this node from the environment; embedded servers are started if none are named."""
    node = Node(Deployment(load_settings()).settings)
    node.connect_signals()
    return node.app


app = build_app()
