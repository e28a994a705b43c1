"""The Celery application: its queues, how messages are executed, and the transport under them."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from app.broker.names import BATCH_QUEUE, CONTROL_QUEUE, QUEUES
from app.broker.order import QueueOrder
from app.domain.strategies import Priority
from app.settings import Settings

#: Turns of the control queue in a full cycle: its few messages never wait behind jobs.
CONTROL_WEIGHT = 1000


def create_celery(settings: Settings) -> Celery:
    """Build the Celery application; nothing connects yet.

    Raises:
        ConfigurationError: no broker is known.
    """
    app = Celery("candlefleet", broker=settings.broker_dsn, set_as_current=False)
    app.conf.update(**_messages(settings), **_execution(settings), **_transport(settings))
    return app


def _messages(settings: Settings) -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_queues": [Queue(name, routing_key=name) for name in (CONTROL_QUEUE, *QUEUES, BATCH_QUEUE)],
        "task_default_queue": Priority.NORMAL.value,
        "task_create_missing_queues": False,
        "worker_send_task_events": settings.metrics,
        "enable_utc": True,
    }


def _execution(settings: Settings) -> dict[str, Any]:
    worker = settings.worker
    return {
        "task_acks_late": True,
        # a queue of each node's own: a canary through it tells a deaf node from a quiet one
        "worker_direct": True,
        "worker_concurrency": worker.slots or None,
        "worker_prefetch_multiplier": worker.prefetch,
        "worker_max_tasks_per_child": worker.max_jobs_per_slot or None,
        "worker_max_memory_per_child": worker.slot_memory_mb * 1024 or None,  # KiB
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_hijack_root_logger": False,
        # a slot imports numpy and TA-Lib before the fork, but a busy machine may still need seconds to fork
        "worker_proc_alive_timeout": 30.0,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
    }


def queue_weights(settings: Settings) -> dict[str, int]:
    """Return the turns of each queue in a full cycle, the most urgent first."""
    live = dict(zip(QUEUES, settings.broker.queue_weights, strict=True))
    return {CONTROL_QUEUE: CONTROL_WEIGHT, **live, BATCH_QUEUE: 0}


def _transport(settings: Settings) -> dict[str, Any]:
    broker, weights = settings.broker, queue_weights(settings)
    return {
        "broker_transport_options": {
            # one Redis list per queue: a strategy's priority is its queue, not a sub-list of it
            "priority_steps": [0],
            "queue_order_strategy": QueueOrder(weights),
            "visibility_timeout": broker.visibility_timeout_s,
            "unacked_restore_interval": broker.restore_interval_s,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "global_keyprefix": broker.key_prefix,
        }
    }
