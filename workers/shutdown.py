"""The end of a node, within a bound: what runs is finished, what cannot finish in time goes back to its queue.

Celery waits for running tasks without a bound (warm) or for a fixed time that it sleeps through (soft). Here the
first SIGTERM or SIGINT starts the warm way and a clock. When the clock runs out, or a second signal comes, the slots
that are still busy are killed and their messages go back as they are. If even that does not end the process, it ends
itself: the ledger knows what is missing, and maintenance sends it again.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from functools import partial
from typing import Any

import psutil
import structlog
from celery import Celery, bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks
from kombu.common import ignore_errors

log = structlog.get_logger()

#: Seconds kept of the bound for giving messages back, when the bound is long enough.
HAND_BACK_S = 3.0

#: Exit code of a node that could not give its messages back: the ledger has to.
EX_NOT_HANDED_BACK = 1


class Shutdown:
    """The clock of one node's end. One per main process.

    Args:
        bound_s: seconds from the first signal until the process is gone, whatever happens.
    """

    def __init__(self, bound_s: float) -> None:
        self._bound_s = bound_s
        # its `put` may be called from a signal handler that interrupted itself, other primitives may not
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._is_handing_back = False

    @property
    def is_handing_back(self) -> bool:
        """Whether slots that die now die by our own hand: their messages go back as they are."""
        return self._is_handing_back

    def watch(self, **_: Any) -> None:
        """Begin to listen, in a thread: the main thread may be anywhere when time runs out."""
        threading.Thread(target=self._run, name="shutdown", daemon=True).start()

    def ask(self, sig: str = "SIGTERM", **_: Any) -> None:
        """Note a signal; called by Celery inside its signal handler."""
        self._asked.put(sig)

    def _run(self) -> None:
        sig = self._asked.get()
        ends_at = time.monotonic() + self._bound_s
        finish_s = max(self._bound_s / 2, self._bound_s - HAND_BACK_S)
        log.info("shutting down", signal=sig, running=len(state.active_requests), at_most_s=self._bound_s)
        self._hand_back(self._await_reason(finish_s))
        time.sleep(max(0.0, ends_at - time.monotonic()))  # a daemon thread: the process may end meanwhile
        log.error("shutdown did not end in time: what is not handed back is sent again by maintenance")
        _kill_slots()
        os._exit(EX_NOT_HANDED_BACK)

    def _await_reason(self, seconds: float) -> str:
        try:
            return f"a second signal, {self._asked.get(timeout=seconds)}"
        except queue.Empty:
            return f"not finished within {seconds:g} s"

    def _hand_back(self, reason: str) -> None:
        self._is_handing_back = True
        log.warning("handing back what still runs", reason=reason, running=len(state.active_requests))
        _kill_slots()


def install(app: Celery) -> None:
    """Teach an application to give waiting messages back at once when its node ends."""
    # SIGQUIT and a second Ctrl-C sleep through this time without looking whether anything still runs
    app.conf.worker_soft_shutdown_timeout = 0
    app.steps["consumer"].add(ReturnWaiting)


class ReturnWaiting(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Gives messages that wait for a slot back before running ones are waited for, to the front of their queues."""

    requires = (Tasks,)

    def stop(self, consumer: Any) -> None:
        """Return them; this also runs, and does nothing, when the consumer starts again after a lost connection."""
        if state.should_stop is None and state.should_terminate is None:
            return
        if not consumer.connection or not consumer.task_consumer:
            return
        ignore_errors(consumer.connection, consumer.task_consumer.cancel)
        # by now Celery has forgotten the requests that wait; the channel still knows their messages
        qos = consumer.task_consumer.channel.qos
        running = {request.message.delivery_tag for request in list(state.active_requests)}
        waiting = [tag for tag in list(qos._delivered) if tag not in running and tag not in qos._dirty]
        for tag in waiting:
            ignore_errors(consumer.connection, partial(_give_back, qos, tag))
        if waiting:
            log.info("handed back what was waiting", messages=len(waiting))


def _give_back(qos: Any, tag: str) -> None:
    qos.restore_by_tag(tag)
    qos._quick_ack(tag)  # so that closing the channel does not look for it


def _kill_slots() -> None:
    for slot in psutil.Process().children():
        try:
            slot.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
