"""Sending jobs again: chunks rebuilt from the ledger, pushed to their queues as these have room."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice

from app.broker import QUEUES, Envelope, envelope
from app.domain.jobs import Chunk
from app.maintenance.planning import Catalogue
from app.producer.planner import PlannedChunk, plan_evenly
from app.storage.unfinished import MissingJob, Unfinished


class Rebuilder:
    """Builds the chunks of jobs that are sent again. Pure.

    Args:
        catalogue: the strategies as they are now.
        jobs_in_chunk: most jobs in one message.
        hard_grace_s: seconds a chunk may run past its longest soft limit.
        most: most chunks of one dispatch, by queue.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        jobs_in_chunk: int,
        hard_grace_s: float,
        most: Mapping[str, int],
    ) -> None:
        self._strategies = catalogue.strategies
        self._version = catalogue.version
        self._jobs_in_chunk = jobs_in_chunk
        self._hard_grace_s = hard_grace_s
        self._most = most

    def envelopes(self, dispatch: Unfinished, jobs: Sequence[MissingJob]) -> list[Envelope]:
        """Build the messages of some jobs of a dispatch, urgent ones first.

        Jobs share a message the first time they are sent again. Later each travels alone, as far as the queues'
        limit allows: whatever took its neighbours down with it is then found out.

        Args:
            dispatch: whose jobs; its candle is known.
            jobs: strategies that the catalogue holds, ascending.
        """
        lanes: Counter[str] = Counter()
        size = self._jobs_in_chunk if dispatch.sends <= 1 else self._smallest_size(len(jobs))
        built = []
        for attempt in sorted({job.next_attempt for job in jobs}):
            for planned in self._plan([job for job in jobs if job.next_attempt == attempt], size):
                queue = planned.priority.value
                if lanes[queue] < self._most[queue]:  # what is over is lost again, and sent then
                    lanes[queue] += 1
                    built.append(self._envelope(dispatch, planned, attempt))
        return sorted(built, key=lambda each: QUEUES.index(each.chunk.priority.value))

    def _smallest_size(self, jobs: int) -> int:
        return max(1, min(self._jobs_in_chunk, -(-jobs // min(self._most.values()))))

    def _plan(self, jobs: Sequence[MissingJob], size: int) -> tuple[PlannedChunk, ...]:
        # what was asked is the dispatch's revision of each strategy, whatever the catalogue has now
        asked = [self._strategies[j.strategy_id].model_copy(update={"revision": j.revision}) for j in jobs]
        return plan_evenly(asked, size)

    def _envelope(self, dispatch: Unfinished, planned: PlannedChunk, attempt: int) -> Envelope:
        if dispatch.candle is None:
            raise ValueError(f"expected the candle of dispatch {dispatch.id}, found none")
        chunk = Chunk(
            dispatch_id=dispatch.id,
            candle=dispatch.candle,
            priority=planned.priority,
            jobs=planned.jobs,
            correlation_id=dispatch.correlation_id,
            created_at=dispatch.created_at,
            deadline=dispatch.deadline,
            expires_at=dispatch.expires_at,
            catalogue_version=self._version,
            previous_open_time=None,  # not known any more: the worker loads its window
            rewrites=dispatch.rewrites,
            attempt=attempt,
        )
        return envelope(
            chunk,
            names=planned.names,
            label=planned.label,
            hard_limit_s=planned.timeout_s + self._hard_grace_s,
            alone=dispatch.sends > 1,
        )


class Outbox:
    """Messages that wait for room in their queues. A dispatch counts as sent when its last one has left."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Envelope]] = {queue: deque() for queue in QUEUES}
        self._left: Counter[int] = Counter()

    @property
    def dispatch_ids(self) -> Collection[int]:
        """Dispatches with messages in it."""
        return self._left.keys()

    def put(self, envelopes: Sequence[Envelope]) -> None:
        """Add messages."""
        for each in envelopes:
            self._waiting[each.chunk.priority.value].append(each)
            self._left[each.chunk.dispatch_id] += 1

    def fitting(self, rooms: Mapping[str, int]) -> list[Envelope]:
        """Return the messages that can go now, urgent ones first.

        Args:
            rooms: messages that may be added, by queue.
        """
        return [each for queue, waiting in self._waiting.items() for each in islice(waiting, rooms.get(queue, 0))]

    def take_out(self, sent: Sequence[Envelope]) -> list[int]:
        """Remove messages that were sent, which `fitting` returned; return the dispatches that are done."""
        for each in sent:
            self._waiting[each.chunk.priority.value].popleft()
            self._left[each.chunk.dispatch_id] -= 1
        done = [number for number, left in self._left.items() if left <= 0]
        for number in done:
            del self._left[number]
        return done

    def drop_expired(self, now: datetime) -> None:
        """Remove messages that are out of date: nobody would execute them."""
        for queue, waiting in self._waiting.items():
            self._waiting[queue] = deque(each for each in waiting if each.chunk.expires_at > now)
        self._left = Counter(each.chunk.dispatch_id for waiting in self._waiting.values() for each in waiting)
