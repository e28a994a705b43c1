"""The Celery tasks: decode, call, done. What happens is in `workers.execution`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import structlog
from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import Reject
from celery.worker.request import Request
from psycopg import DataError as DriverDataError
from sqlalchemy.exc import DataError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.broker import BURY_TASK, CANARY_TASK, DEAD_LETTER_TASK, EXECUTE_TASK, VERIFY_TASK, WORK_TASK
from app.domain.jobs import Bundle, Chunk, OutcomeStatus
from app.errors import MessageError, TransientError
from app.telemetry import about_dispatch
from app.tickets import read_ticket, send_tickets
from app.verifying import run_verifications
from workers.execution import Landed
from workers.lifecycle import Slot
from workers.requests import RECEIVED_AT
from workers.shared import Tally
from workers.telling import Delivery

log = structlog.get_logger()
T = TypeVar("T")

#: Seconds a slot tries by itself before it hands a message back to the queue: below every hard limit.
PATIENCE_S = 3.0

#: How a job can have ended with its slot.
BURIED = (OutcomeStatus.CRASHED, OutcomeStatus.TIMED_OUT, OutcomeStatus.CANCELLED)

#: A message asked for something that cannot be, such as an id that no column holds.
_SENSELESS = (MessageError, DriverDataError, DataError, RecursionError)


def register(app: Celery, slot: Callable[[], Slot], tally: Tally, request: type[Request]) -> None:
    """Register the tasks on the application.

    Their arguments are checked by us: a call with wrong ones is a dead letter, not an error of Python.

    Args:
        app: the application.
        slot: returns what this process owns.
        tally: counts what the node has done.
        request: what the main process makes of a delivered message.
    """

    def execute(task: Task, *given: object, **named: object) -> None:
        _count(tally, _settle(slot, given, named, partial(_execute, task.request)))

    def bury(task: Task, *given: object, **named: object) -> None:
        _count(tally, _settle(slot, given, named, partial(_bury, task.request)))

    def keep_dead_letter(_task: Task, *given: object, **named: object) -> None:
        _settle(slot, given, named, _keep_dead_letter)

    def answer_canary(_task: Task, *given: object, **named: object) -> None:
        _settle(slot, given, named, _answer_canary)

    def verify(task: Task, *given: object, **named: object) -> None:
        _settle(slot, given, named, partial(_verify, task.request))

    def work(_task: Task, *given: object, **named: object) -> None:
        _settle(slot, given, named, _work)

    tasks: dict[str, Callable[..., None]] = {
        EXECUTE_TASK: execute,
        BURY_TASK: bury,
        DEAD_LETTER_TASK: keep_dead_letter,
        CANARY_TASK: answer_canary,
        VERIFY_TASK: verify,
        WORK_TASK: work,
    }
    for name, task in tasks.items():
        # Celery's own events would be about messages; those about jobs are sent by `workers.events`
        options = {"send_events": name == WORK_TASK, "reject_on_worker_lost": name == WORK_TASK}
        app.task(name=name, Request=request, bind=True, **options)(task)


def _execute(request: Context, slot: Slot, body: object) -> list[Landed]:
    bundle = Bundle.from_wire(body)
    with _shown(slot, request, bundle.jobs):
        return _run(slot, bundle.chunks)


@contextmanager
def _shown(slot: Slot, request: Context, jobs: int) -> Iterator[None]:
    """Have the events of the body's jobs sent, as jobs of one message."""
    if slot.events is None:
        yield
        return
    received_at = request.get(RECEIVED_AT) or time.time()
    slot.events.open(Delivery(request.hostname, os.getppid(), received_at, request.eta, jobs))
    try:
        yield
    finally:
        slot.events.end()


def _run(slot: Slot, chunks: Sequence[Chunk]) -> list[Landed]:
    first = chunks[0]
    if len(chunks) == 1:
        with about_dispatch(first.dispatch_id, first.correlation_id):
            return slot.executor.execute(chunks)
    try:
        return slot.executor.execute(chunks)
    except _SENSELESS:
        # one chunk of the message makes no sense: the others land all the same, and it alone is refused
        return [landed for chunk in chunks for landed in _alone(slot, chunk)]


def _alone(slot: Slot, chunk: Chunk) -> list[Landed]:
    message = Bundle(chunks=(chunk,)).to_wire()
    return _settle(lambda: slot, (message,), {}, lambda slot, body: _run(slot, Bundle.from_wire(body).chunks)) or []


def _count(tally: Tally, landed: Sequence[Landed] | None) -> None:
    landed = landed or ()
    tally.add(sum(len(each.outcomes) for each in landed), sum(each.failed for each in landed))


def _bury(request: Context, slot: Slot, body: object) -> list[Landed]:
    if not isinstance(body, dict) or body.get("status") not in BURIED:
        raise MessageError("expected a chunk, a status and an error to bury")
    (chunk,) = Bundle.from_wire(body.get("message")).chunks
    with about_dispatch(chunk.dispatch_id, chunk.correlation_id), _shown(slot, request, jobs=1):
        return slot.executor.bury(chunk, OutcomeStatus(body["status"]), str(body.get("error")))


def _keep_dead_letter(slot: Slot, body: object) -> None:
    reason, text = _texts(body, "reason", "body")
    slot.store.keep_dead_letter(reason, text, slot.name)


def _answer_canary(slot: Slot, body: object) -> None:
    slot.store.answer_canary(*_texts(body, "node"))


def _verify(request: Context, slot: Slot, body: object) -> None:
    # delivered again: the slot that took it first is gone
    again = bool((request.delivery_info or {}).get("redelivered"))
    run_verifications(slot.store.within, slot.settings, _texts(body, "verification"), slot.name, again=again)


def _work(slot: Slot, body: object) -> None:
    ticket = read_ticket(body)
    run = slot.batch.work(ticket.run, ticket.number)
    if run is not None:
        send_tickets(slot.publisher, run.id, [ticket.number], run.hard_limit_s)


def _texts(body: object, *names: str) -> tuple[str, ...]:
    values = tuple(body.get(name) for name in names) if isinstance(body, dict) else ()
    if not values or not all(isinstance(value, str) for value in values):
        raise MessageError(f"expected an object with texts: {', '.join(names)}")
    return tuple(str(value) for value in values)


def _settle(
    slot: Callable[[], Slot], given: tuple[object, ...], named: dict[str, object], action: Callable[[Slot, object], T]
) -> T | None:
    """Do it, patiently; what makes no sense becomes a dead letter, what cannot be done now goes back."""
    try:
        return _patiently(lambda: action(slot(), _only(given, named)))
    except _SENSELESS as error:
        reason = str(error) if isinstance(error, MessageError) else f"{type(error).__name__}: {error}"
        log.error("message refused", reason=reason)
        text = _show(given, named)
        _patiently(lambda: slot().store.keep_dead_letter(reason, text, slot().name))
        return None


def _only(given: tuple[object, ...], named: dict[str, object]) -> object:
    if len(given) != 1 or named:
        raise MessageError(f"expected one argument, found {len(given)} and {len(named)} by name")
    return given[0]


def _show(given: tuple[object, ...], named: dict[str, object]) -> str:
    try:
        return json.dumps([*given, named] if named else given[0] if len(given) == 1 else given)
    except RecursionError:
        return "(nested too deeply to be shown)"


def _patiently(action: Callable[[], T]) -> T:
    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait_random_exponential(multiplier=0.1, max=1.0),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )
    try:
        return retrying(action)
    except TransientError as error:
        log.warning("message handed back", reason=str(error))
        raise Reject(str(error), requeue=True) from error
