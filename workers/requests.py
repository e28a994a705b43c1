"""What the main process does with a message beside handing it to a slot.

When the slot dies or is killed its chunk is split, and a job that dies alone is buried. Jobs that an operator takes
back are noted where slots see them.

This runs in the main process of a node, which has no database: it sends messages, and a slot does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import bootsteps
from celery.worker import state
from celery.worker.request import Request

from app.broker import BURY_TASK, EXECUTE_TASK, Envelope, Publisher, envelope
from app.domain.jobs import Bundle, Chunk, OutcomeStatus, read_job_id
from app.errors import BrokerUnavailableError, MessageError
from workers.shared import Present, Revoked, Running

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

#: What the main process adds to a message's headers for the slot: when it took it, epoch seconds.
RECEIVED_AT = "received_at"


class NoticeDeaths(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Has the main process of a node look for dead slots often."""

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Begin, with every new connection: Celery takes back what was registered with the old one."""
        hub.call_repeatedly(LOOK_FOR_DEAD_EVERY_S, worker.pool.maintain_pool)


def hear_revocations(revoked: Revoked) -> None:
    """Have the jobs noted that Celery is told to revoke, in the main process.

    Celery keeps all it was told in one set, whoever told it: a control command, another node at the start, a file.
    """
    known = state.revoked
    add = known.add

    def add_and_note(task_id: Any, now: float | None = None) -> None:
        is_news = task_id not in known
        add(task_id, now)
        job = read_job_id(task_id) if is_news and isinstance(task_id, str) else None
        if job is not None:
            revoked.add(*job)

    known.add = add_and_note


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a request of this node needs beside its message."""

    publisher: Callable[[], Publisher]
    """Returns the main process's own publisher."""
    is_handing_back: Callable[[], bool]
    """Tells whether slots die because the node is ending."""
    present: Present
    """Tells what a slot ran when it died, and takes note of whom that makes suspect."""
    hard_grace_s: float
    """Seconds a job may run past its soft limit."""


class ChunkRequest(Request):  # type: ignore[misc]  # Celery ships no types
    """A delivered message: does what is left to do when its slot dies, then what Celery does."""

    around: ClassVar[Surroundings]
    _is_dealt_with = False
    _terminate_on_ack: tuple[Any, Any] | None = None

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self._request_dict[RECEIVED_AT] = time.time()

    def revoked(self) -> bool:
        """Tell whether the message is to be dropped unread: never because of an id or its age.

        Its slot knows which of its jobs are taken back or out of date, and records them as such.
        """
        return bool(self._already_revoked if self.type == EXECUTE_TASK else super().revoked())

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the slot that runs a job alone, and have the job recorded as cancelled."""
        if self.type == EXECUTE_TASK and self.time_start is None:
            self._terminate_on_ack = (pool, signal)
            return
        if self.type != EXECUTE_TASK:
            super().terminate(pool, signal)
            return
        # any other signal is an exception in the job's code, and the end of the job would be its failure
        super().terminate(pool, "SIGKILL")
        with self._refusals("slot ended over what is not a chunk"):
            cancel(self.around.publisher(), self.args)

    def on_accepted(self, pid: int, time_accepted: float) -> Any:
        """Note that a slot has taken it; a slot that was to be ended for it, and will not run it, is spared."""
        if self._terminate_on_ack is not None and self.around.present.of(pid) is None:
            self._terminate_on_ack = None
        return super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Deal with the jobs of a slot that died."""
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
        """Deal with the jobs of a slot that is killed for running past its hard limit."""
        if soft:
            return super().on_timeout(soft, timeout)
        if self._is_handed_back():
            return state.task_ready(self)
        self._deal_with(TimeLimitExceeded(timeout))
        return super().on_timeout(soft, timeout)

    def _is_handed_back(self) -> bool:
        # a node that shuts down or lost its broker gives the message back as it is
        is_ours = self._already_cancelled or self._already_revoked
        return bool(is_ours or state.should_terminate or self.around.is_handing_back())

    def _deal_with(self, error: BaseException) -> None:
        # Celery tells of a hard limit twice, by failure and by time-out; its `name` is what a log line shows
        if self._is_dealt_with or self.type != EXECUTE_TASK:
            return
        self._is_dealt_with = True
        around = self.around
        with self._refusals("slot died over what is not a chunk"):
            ran = around.present.of(self.worker_pid)
            if ran is not None:
                around.present.suspect(ran.strategy_id)
            hard_limit_s = self.time_limits[0] or around.hard_grace_s
            deal_with(around.publisher(), self.args, error, hard_limit_s, ran, around.hard_grace_s)

    @contextmanager
    def _refusals(self, event: str) -> Iterator[None]:
        try:
            yield
        except MessageError as refused:
            log.error(event, reason=str(refused))
        except BrokerUnavailableError as away:
            # nothing is lost: the ledger knows what is missing, and maintenance sends it again
            log.error("slot died and its jobs could not be sent again", task=self.id, reason=str(away))


def build_request(around: Surroundings) -> type[ChunkRequest]:
    """Build the Request class of this node."""
    return type("ChunkRequest", (ChunkRequest,), {"around": around})


def cancel(publisher: Publisher, arguments: Any) -> None:
    """Have a job recorded as cancelled whose slot an operator ended; of a chunk nothing, its jobs are sent again.

    Args:
        publisher: of this process.
        arguments: of the task.

    Raises:
        MessageError: the task's argument is not a chunk.
        BrokerUnavailableError: Redis is away.
    """
    bundle = Bundle.from_wire(arguments[0] if arguments else None)
    if bundle.jobs == 1:
        _bury(publisher, bundle.chunks[0], OutcomeStatus.CANCELLED, "ended by an operator")


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
        is_timeout = isinstance(error, TimeLimitExceeded)
        text = f"ran past the hard limit of {hard_limit_s:g} s" if is_timeout else str(error)
        strategy, attempt = first.jobs[0].strategy_id, first.attempt
        log.warning("slot died over one job", strategy=strategy, attempt=attempt, reason=text, **known)
        _bury(publisher, first, OutcomeStatus.TIMED_OUT if is_timeout else OutcomeStatus.CRASHED, text)


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


def _bury(publisher: Publisher, chunk: Chunk, status: OutcomeStatus, text: str) -> None:
    body = {"message": Bundle(chunks=(chunk,)).to_wire(), "status": status.value, "error": text}
    task_id = f"bury.{chunk.task_id}.{chunk.attempt}"
    publisher.send_control(BURY_TASK, body, task_id=task_id, correlation_id=chunk.correlation_id)
