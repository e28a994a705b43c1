"""The Celery application of the baseline, as its producer and its worker share it."""

from __future__ import annotations

from celery import Celery

from app.settings import Settings

TASK = "bench.execute"
QUEUE = "jobs"
KEY_PREFIX = "bench-celery:"


def create_plain_celery(settings: Settings) -> Celery:
    """Build the application, for its producer and its worker; nothing connects yet."""
    app = Celery("bench", broker=settings.broker_dsn, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        task_default_queue=QUEUE,
        broker_transport_options={"global_keyprefix": KEY_PREFIX},
        broker_connection_retry_on_startup=True,
    )
    return app
