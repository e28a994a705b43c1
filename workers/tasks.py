"""The Celery tasks: decode, call, done. What happens is in `workers.execution`."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from celery import Celery
from celery.exceptions import Reject
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.broker import EXECUTE_TASK
from app.domain.jobs import Bundle
from app.errors import MessageError, TransientError
from workers.execution import Landed
from workers.heartbeat import Tally
from workers.lifecycle import Slot

log = structlog.get_logger()

#: Seconds a slot tries by itself before it hands a chunk back to the queue: below every hard limit.
PATIENCE_S = 3.0


def register(app: Celery, slot: Callable[[], Slot], tally: Tally) -> None:
    """Register the tasks on the application.

    Args:
        app: the application.
        slot: returns what this process owns.
        tally: counts what the node has done.
    """

    @app.task(name=EXECUTE_TASK)  # type: ignore[untyped-decorator]  # Celery ships no types
    def execute(body: object) -> None:
        try:
            chunks = Bundle.from_wire(body).chunks
        except MessageError as error:
            log.error("message refused", reason=str(error))
            return
        try:
            landed = _patiently(lambda: slot().executor.execute(chunks))
        except TransientError as error:
            log.warning("message handed back", dispatch=chunks[0].dispatch_id, reason=str(error))
            raise Reject(str(error), requeue=True) from error
        tally.add(sum(len(each.outcomes) for each in landed), sum(each.failed for each in landed))


def _patiently(action: Callable[[], list[Landed]]) -> list[Landed]:
    return Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait_random_exponential(multiplier=0.1, max=1.0),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )(action)
