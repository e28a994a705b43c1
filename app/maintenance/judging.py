"""When a job that was sent counts as lost. Pure: what the queues, the nodes and the ledger say, and the time.

A job is lost when it has left its queue, no living node holds it, and it did not end. What cannot be told counts as
not lost: sending again is safe but costs work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.strategies import Priority
from app.storage.unfinished import MissingJob, Unfinished

#: A chunk's task id, `<dispatch>.<first strategy>[+<number of others>]`, perhaps inside that of its burial.
_TASK_ID = re.compile(r"(?:bury\.)?(\d+)\.(\d+)(?:\+(\d+))?(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class TaskId:
    """What the id of a message says of its jobs."""

    dispatch_id: int
    strategy_id: int
    others: int = 0
    """Jobs beside the first; their strategies have higher ids."""

    @classmethod
    def parse(cls, text: str) -> TaskId | None:
        """Read it; None if it is not the id of a chunk."""
        match = _TASK_ID.fullmatch(text)
        return cls(int(match[1]), int(match[2]), int(match[3] or 0)) if match else None

    def may_hold(self, strategy_id: int) -> bool:
        """Tell whether the job of this strategy may be in the message: jobs travel in the order of their ids."""
        return strategy_id == self.strategy_id or (self.others > 0 and strategy_id > self.strategy_id)


class Held:
    """The messages that living nodes hold."""

    def __init__(self, task_ids: Iterable[str]) -> None:
        self._by_dispatch: dict[int, list[TaskId]] = {}
        for task_id in filter(None, map(TaskId.parse, task_ids)):
            self._by_dispatch.setdefault(task_id.dispatch_id, []).append(task_id)

    def may_hold(self, dispatch_id: int, strategy_id: int) -> bool:
        """Tell whether a job may be among them."""
        return any(task_id.may_hold(strategy_id) for task_id in self._by_dispatch.get(dispatch_id, ()))


@dataclass(frozen=True, slots=True)
class Head:
    """The message that has waited longest in a queue."""

    dispatch_id: int | None
    """None when its id does not say."""
    created_at: datetime | None
    """When its dispatch was written: no later than the message was sent. None when unknown."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was at the head of every queue at one moment. Queues are first in, first out."""

    at: datetime
    """When it was certainly over."""
    heads: Mapping[str, Head | None]
    """By queue; None for an empty one."""

    def has_left(self, queue: str, dispatch_id: int, sent_at: datetime, *, is_first: bool) -> bool:
        """Tell whether a message certainly no longer waits.

        Args:
            queue: where it was sent.
            dispatch_id: whose chunk it is.
            sent_at: when it was surely in the queue.
            is_first: whether it was sent once only, so that the queue had it in the order of the ids. What was sent
                again waits behind higher ids: there only the time tells.
        """
        if self.at <= sent_at:
            return False
        head = self.heads.get(queue)
        if head is None:
            return True
        if is_first and head.dispatch_id is not None and dispatch_id < head.dispatch_id:
            return True
        return head.created_at is not None and head.created_at > sent_at


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait before a job may count as lost."""

    overdue: timedelta
    """Time from sending on."""
    retry_delay_s: Callable[[int], float]
    """Returns the longest delay in seconds before a given attempt: a retry waits it out in a worker's memory."""

    def until(self, dispatch: Unfinished, job: MissingJob) -> datetime:
        """Return the moment before which the job of a published dispatch is not looked at."""
        sent_at = last_sent_at(dispatch, job)
        if job.tried_at is None or job.tried_at < sent_at:
            return sent_at + self.overdue
        return sent_at + self.overdue + timedelta(seconds=self.retry_delay_s(job.next_attempt))


def last_sent_at(dispatch: Unfinished, job: MissingJob) -> datetime:
    """Return when the job was last put on its queue: by maintenance or a producer, or as a retry by a worker."""
    published_at = dispatch.published_at or dispatch.created_at
    return published_at if job.tried_at is None else max(published_at, job.tried_at)


def find_lost(
    dispatch: Unfinished,
    queues: Mapping[int, Priority],
    look: Look,
    held: Held,
    patience: Patience,
    now: datetime,
) -> tuple[MissingJob, ...]:
    """Return the missing jobs of a dispatch that count as lost.

    One that nobody marked as published may be there in part: its producer ended, or left the rest, while it waited
    for room. Its jobs are judged as if all of it had been sent when it was written.

    Args:
        dispatch: whose jobs; no living producer holds it.
        queues: queue of each strategy; one that is unknown counts as having left it.
        look: at the queues, before the nodes said what they hold.
        held: what they hold.
        patience: how long to wait.
        now: moment of judgement.
    """
    return tuple(
        job
        for job in dispatch.missing
        if not held.may_hold(dispatch.id, job.strategy_id)
        and now >= patience.until(dispatch, job)
        and _has_left(dispatch, job, queues.get(job.strategy_id), look)
    )


def _has_left(dispatch: Unfinished, job: MissingJob, queue: Priority | None, look: Look) -> bool:
    is_first = dispatch.sends <= 1 and job.tried_at is None
    return queue is None or look.has_left(queue.value, dispatch.id, last_sent_at(dispatch, job), is_first=is_first)
