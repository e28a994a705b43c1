"""Tickets: the messages that make slots work on a run. Postgres has the units; a ticket only says that there are some.

Each ticket of a run has a number, and one slot at most works on a number at a time: how many numbers there are is how
many slots may work on the run. A ticket that was sent twice does no harm, and one that was lost is sent again.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, Self

from sqlalchemy import Connection

from app.broker import BATCH_QUEUE, WORK_TASK, Publisher
from app.errors import MessageError
from app.storage import runs
from app.storage.nodes import count_slots, load_nodes

#: Tickets for each slot that serves runs: one it works on, and one that waits when it is done.
TICKETS_A_SLOT = 2

#: Time for which a ticket may be in nobody's hands that we can see: on its way from the queue to a slot, and between
#: two signs of life of its node.
UNSEEN_FOR = timedelta(seconds=3)

_TASK_ID = re.compile(r"run\.(\d{1,10})\.(\d{1,10})\.[0-9a-f]{8}")


class Ticket(NamedTuple):
    """One ticket of a run."""

    run: int
    number: int

    @property
    def task_id(self) -> str:
        """A new id for its message: a node may hold the next one before it is done with this one."""
        return f"run.{self.run}.{self.number}.{uuid.uuid4().hex[:8]}"

    @classmethod
    def find(cls, task_ids: Iterable[str | None]) -> set[Self]:
        """Return the tickets among the ids of messages."""
        matches = [_TASK_ID.fullmatch(task_id) for task_id in task_ids if task_id]
        return {cls(int(match[1]), int(match[2])) for match in matches if match}


def read_ticket(body: object) -> Ticket:
    """Read a ticket from a message.

    Raises:
        MessageError: it is none.
    """
    run, number = (body.get("run"), body.get("ticket")) if isinstance(body, dict) else (None, None)
    if not (isinstance(run, int) and isinstance(number, int) and 0 <= run < 2**31 and 0 <= number < 2**31):
        raise MessageError("expected an object with the numbers of a run and a ticket")
    return Ticket(run, number)


def send_tickets(publisher: Publisher, run: int, numbers: Iterable[int], hard_limit_s: float) -> None:
    """Send tickets of a run. May be repeated.

    Args:
        publisher: of this process.
        run: its id.
        numbers: of the tickets.
        hard_limit_s: seconds after which a slot is killed that works on one.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    for number in numbers:
        body, task_id = {"run": run, "ticket": number}, Ticket(run, number).task_id
        publisher.send_control(WORK_TASK, body, task_id=task_id, queue=BATCH_QUEUE, limit_s=hard_limit_s)


class Tickets:
    """Sees to it that every running run has its tickets: sends those that nobody seems to have.

    Args:
        publisher: of this process.
        silence: time without a sign of life after which a node counts as gone.
        patience: time for which a ticket must have been missing.
    """

    def __init__(self, publisher: Publisher, silence: timedelta, patience: timedelta = UNSEEN_FOR) -> None:
        self._publisher = publisher
        self._silence = silence
        self._patience = patience
        self._missing_since: dict[Ticket, datetime] = {}

    def send_missing(self, connection: Connection, now: datetime) -> int:
        """Send what has been missing for long enough; return how many.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        open_runs = [run for run in runs.load_open(connection) if run.pending]
        if not open_runs:
            self._missing_since.clear()
            return 0
        slots = count_slots(connection, self._silence, [BATCH_QUEUE])
        nodes = load_nodes(connection, self._silence)
        seen = Ticket.find(held for node in nodes if node["is_alive"] for held in node["held"])
        seen |= Ticket.find(self._publisher.task_ids(BATCH_QUEUE))
        due = {run.id: self._due(run, slots, seen | _held(connection, run.id), now) for run in open_runs}
        for run in open_runs:
            send_tickets(self._publisher, run.id, due[run.id], run.hard_limit_s)
        self._forget(set(due))
        return sum(map(len, due.values()))

    def _due(self, run: runs.OpenRun, slots: int, seen: Collection[Ticket], now: datetime) -> list[int]:
        due = []
        for number in range(wanted(run.concurrency, slots, run.pending)):
            ticket = Ticket(run.id, number)
            if ticket in seen:
                self._missing_since.pop(ticket, None)
            elif now - self._missing_since.setdefault(ticket, now) >= self._patience:
                self._missing_since[ticket] = now
                due.append(number)
        return due

    def _forget(self, running: Collection[int]) -> None:
        self._missing_since = {key: since for key, since in self._missing_since.items() if key.run in running}


def wanted(concurrency: int, slots: int, pending: int) -> int:
    """Return how many tickets a run should have.

    Args:
        concurrency: most slots that may work on it.
        slots: that serve runs, 0 when there is none yet.
        pending: units left.
    """
    return min(concurrency, max(1, slots) * TICKETS_A_SLOT, pending)


def _held(connection: Connection, run: int) -> set[Ticket]:
    return {Ticket(run, number) for number in runs.load_held_tickets(connection, run)}
