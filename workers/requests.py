"""What happens when a slot dies or is killed: its chunk is split, and a job that dies alone is buried.

This runs in the main process of a node, which has no database: it sends messages, and a slot does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import bootsteps
from celery.worker import state
from celery.worker.request import Request

from app.broker import BURY_TASK, CONTROL_QUEUE, EXECUTE_TASK, Envelope, Publisher, envelope
from app.domain.jobs import Bundle, Chunk, OutcomeStatus
from app.errors import BrokerUnavailableError, MessageError
from workers.heartbeat import Present, Running

log = structlog.get_logger()

#: Seconds between two looks for slots that have died. Celery is woken when a slot closes its end of a pipe, which is
#: a moment before the process can be waited for; when it looks in that moment it sees nothing, and looks again only
#: after five seconds. Two seconds are all that an innocent job may wait.
LOOK_FOR_DEAD_EVERY_S = 0.2


#: Seconds that the job which ran when its slot died waits before it runs alone.
SUSPECT_WAITS_S = 1.0

#: Attempts of a job alone that may end with a slot that died while it ran no strategy: Postgres did not answer, or
#: somebody killed the slot. After these the strategy is blamed, so that nothing is sent for ever.
MOST_BLAMELESS = 3


class NoticeDeaths(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Has the main process of a node look for dead slots often."""

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Begin, with every new connection: Celery takes back what was registered with the old one."""
        hub.call_repeatedly(LOOK_FOR_DEAD_EVERY_S, worker.pool.maintain_pool)


class UrgentPublisher(Publisher):
    """Sends everything on the control queue: the jobs of a dead slot have waited for their turn once already."""

    def _put(self, *what: Any, queue: str, **options: Any) -> None:
        del queue
        super()._put(*what, queue=CONTROL_QUEUE, **options)


def build_request(
    publisher: Callable[[], Publisher],
    is_handing_back: Callable[[], bool],
    present: Present,
    hard_grace_s: float,
) -> type[Request]:
    """Build the Request class of this node.

    Args:
        publisher: returns the main process's own publisher.
        is_handing_back: tells whether slots die because the node is ending.
        present: tells what a slot ran when it died, and takes note of whom that makes suspect.
        hard_grace_s: seconds a job may run past its soft limit.
    """

    class ChunkRequest(Request):  # type: ignore[misc]  # Celery ships no types
        """A delivered message: does what is left to do when its slot dies, then what Celery does."""

        _is_dealt_with = False

        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
            error = getattr(exc_info.exception, "exc", exc_info.exception)
            if not isinstance(error, WorkerLostError | TimeLimitExceeded | SystemExit):
                return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            if self._is_handed_back():
                # not acknowledged: closing the channel puts the message back to the front of its queue
                return state.task_ready(self)
            self._deal_with(error)
            # without an exception in it Celery acknowledges and says the rest without a traceback of its own insides
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=True)

        def on_timeout(self, soft: bool, timeout: float) -> Any:
            if soft:
                return super().on_timeout(soft, timeout)
            if self._is_handed_back():
                return state.task_ready(self)
            self._deal_with(TimeLimitExceeded(timeout))
            return super().on_timeout(soft, timeout)

        def _is_handed_back(self) -> bool:
            # a node that shuts down or lost its broker gives the message back as it is
            return bool(self._already_cancelled or self._already_revoked or state.should_terminate or is_handing_back())

        def _deal_with(self, error: BaseException) -> None:
            # Celery tells of a hard limit twice, by failure and by time-out; its `name` is what Flower shows
            if self._is_dealt_with or self.type != EXECUTE_TASK:
                return
            self._is_dealt_with = True
            try:
                ran = present.of(self.worker_pid)
                if ran is not None:
                    present.suspect(ran.strategy_id)
                deal_with(publisher(), self.args, error, self.time_limits[0] or hard_grace_s, ran, hard_grace_s)
            except MessageError as refused:
                log.error("slot died over what is not a chunk", reason=str(refused))
            except BrokerUnavailableError as away:
                # nothing is lost: the ledger knows what is missing, and maintenance sends it again
                log.error("slot died and its jobs could not be sent again", task=self.id, reason=str(away))

    return ChunkRequest


def deal_with(
    publisher: Publisher,
    arguments: Any,
    error: BaseException,
    hard_limit_s: float,
    ran: Running | None,
    hard_grace_s: float,
) -> None:
    """Send each job of a dead slot's chunk again, alone; report a job that was alone already.

    Args:
        publisher: of this process.
        arguments: of the task.
        error: how the slot ended.
        hard_limit_s: of the chunk, kept for each of its jobs.
        ran: whose code the slot was in.
        hard_grace_s: seconds a job may run past its soft limit.

    Raises:
        MessageError: the task's argument is not a chunk.
        BrokerUnavailableError: Redis is away.
    """
    bundle = Bundle.from_wire(arguments[0] if arguments else None)
    first = bundle.chunks[0]
    known = {"dispatch": first.dispatch_id, "jobs": bundle.jobs, "correlation": first.correlation_id}
    if bundle.jobs > 1:
        suspect = ran.strategy_id if ran else None
        log.warning("slot died: its jobs are sent again, each alone", reason=str(error), suspect=suspect, **known)
        publisher.publish([each for chunk in bundle.chunks for each in _split(chunk, hard_limit_s, ran, hard_grace_s)])
    elif ran is None and first.attempt < MOST_BLAMELESS:
        log.warning("slot died outside of any strategy: its job is sent again", reason=str(error), **known)
        again = first.model_copy(update={"attempt": first.attempt + 1})
        publisher.publish([envelope(again, names="sent again", label=None, hard_limit_s=hard_limit_s, alone=True)])
    else:
        _bury(publisher, first, error, hard_limit_s)


def _split(chunk: Chunk, hard_limit_s: float, ran: Running | None, hard_grace_s: float) -> list[Envelope]:
    envelopes = []
    for alone in chunk.split():
        if ran is not None and alone.jobs[0].strategy_id == ran.strategy_id:
            # later, and with its own limit: should it hang again, its neighbours have landed by then
            own_s = min(hard_limit_s, ran.timeout_s + hard_grace_s)
            suspected = envelope(
                alone, names="split, suspected", label=None, hard_limit_s=own_s, countdown_s=SUSPECT_WAITS_S
            )
            envelopes.append(suspected)
        else:
            envelopes.append(envelope(alone, names="split", label=None, hard_limit_s=hard_limit_s, alone=True))
    return envelopes


def _bury(publisher: Publisher, chunk: Chunk, error: BaseException, hard_limit_s: float) -> None:
    is_timeout = isinstance(error, TimeLimitExceeded)
    status = OutcomeStatus.TIMED_OUT if is_timeout else OutcomeStatus.CRASHED
    text = f"ran past the hard limit of {hard_limit_s:g} s" if is_timeout else str(error)
    strategy, known = chunk.jobs[0].strategy_id, {"dispatch": chunk.dispatch_id, "correlation": chunk.correlation_id}
    log.warning("slot died over one job", strategy=strategy, attempt=chunk.attempt, reason=text, **known)
    body = {"message": Bundle(chunks=(chunk,)).to_wire(), "status": status.value, "error": text}
    task_id = f"bury.{chunk.task_id}.{chunk.attempt}"
    publisher.send_control(BURY_TASK, body, task_id=task_id, correlation_id=chunk.correlation_id)
