"""What the world sees of jobs: Celery's task events, one task a job, sent by the slot that runs it.

Celery itself would speak of messages, and a message carries many jobs. The slot's own thread only notes results; a
small thread of its own builds events of those that are to be shown and sends all of a tenth of a second in one
message. Nothing waits for it: what does not fit is counted and gone, and so is everything while Redis is away.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

import structlog

from app.domain.jobs import Chunk, Outcome, OutcomeStatus
from app.errors import BrokerUnavailableError
from app.settings import EventSettings
from app.storage.landing import Attempt, Landing
from workers.runtime.strategies import Runtime
from workers.shared import Tally
from workers.telling import Delivery, Event, Told, build_begun, build_events

log = structlog.get_logger()

#: Events of a job that went well: received, started, succeeded.
EVENTS_PER_JOB = 3
#: Seconds a slot that ends waits for its last events to leave.
LAST_FLUSH_WITHIN_S = 1.0

#: Sends a list of events of a node in one message. Raises BrokerUnavailableError.
Send = Callable[[str, Sequence[Event]], None]

#: Ends of which a flood says no more than a few: the job went well, or was not run at all.
_QUIET = frozenset({OutcomeStatus.SUCCEEDED, OutcomeStatus.EXPIRED, OutcomeStatus.SKIPPED})


class Rate:
    """A bucket of tokens that fills with time: how many jobs may be shown now. Holds one second's worth, one at least.

    Args:
        per_s: tokens a second.
        clock: returns seconds that only grow.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._most = max(per_s, 1.0) if per_s else 0.0
        self._tokens = self._most
        self._at = clock()

    def take(self, wanted: int) -> int:
        """Take as many tokens as there are, `wanted` at most."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        taken = min(wanted, int(self._tokens))
        self._tokens -= taken
        return taken


class Shelf:
    """A bounded buffer in which failures take the place of successes, and never the other way round.

    Args:
        most: jobs it holds.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._loud: deque[Told] = deque()
        self._quiet: deque[Told] = deque()

    def __len__(self) -> int:
        return len(self._loud) + len(self._quiet)

    @property
    def room(self) -> int:
        """How many more jobs fit."""
        return self.most - len(self)

    def put_quiet(self, told: Told) -> None:
        """Add one that there is room for."""
        self._quiet.append(told)

    def put_loud(self, told: Told) -> bool:
        """Add a job that must be shown; return whether one was lost for it, perhaps itself."""
        if self.room > 0:
            self._loud.append(told)
            return False
        if self._quiet:
            self._quiet.popleft()
            self._loud.append(told)
        return True

    def empty(self) -> list[Told]:
        """Take everything."""
        taken = [*self._loud, *self._quiet]
        self._loud.clear()
        self._quiet.clear()
        return taken


class JobEvents:
    """The events of one slot's jobs. Its methods belong to the slot's own thread, and none of them waits for Redis.

    Args:
        send: sends a list of events of a node in one message.
        close: gives back what `send` holds.
        settings: rate, size of the buffer and pause between two messages.
        tally: counts what was sent and what was not.
        running: returns the strategy whose code the slot is in.
    """

    def __init__(
        self,
        send: Send,
        close: Callable[[], None],
        settings: EventSettings,
        tally: Tally,
        running: Callable[[], int],
    ) -> None:
        self._send = send
        self._close = close
        self._every_s = settings.flush_ms / 1000
        self._tally = tally
        self._running = running
        self._rate = Rate(settings.rate / EVENTS_PER_JOB)
        self._shelf = Shelf(settings.buffer // EVENTS_PER_JOB)
        self._sampled = self._dropped = 0
        self._delivery: Delivery | None = None
        # the chunk that runs, its runtimes and since when; and what was seen of it at the last look
        self._current: tuple[Chunk, Sequence[Runtime], float] | None = None
        self._looked_at: tuple[Chunk, int, float] | None = None
        self._begun: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._busy, self._hurry = threading.Event(), threading.Event()
        self._is_closing = False
        self._away_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="job events", daemon=True)

    def start(self) -> None:
        """Begin to send; after the fork."""
        self._thread.start()

    def close(self) -> None:
        """Send what is left, within a second."""
        self._is_closing = True
        self._hurry.set()
        self._busy.set()
        self._thread.join(LAST_FLUSH_WITHIN_S)

    def open(self, delivery: Delivery) -> None:
        """Note that the slot works on a message now."""
        with self._lock:
            self._delivery = delivery
            self._begun.clear()
        if not self._busy.is_set():
            self._busy.set()

    def begin(self, chunk: Chunk, runtimes: Sequence[Runtime]) -> None:
        """Note that the jobs of a chunk run now."""
        self._current = (chunk, runtimes, time.time())

    def land(self, chunk: Chunk, runtimes: Sequence[Runtime], landing: Landing) -> None:
        """Note what became of a chunk; nothing is built of a job that will not be shown."""
        with self._lock:
            self._current = None
            if self._delivery is not None:
                self._put(self._delivery, chunk, runtimes, landing)
            is_filling = 2 * self._shelf.room < self._shelf.most
        if is_filling and not self._hurry.is_set():
            self._hurry.set()

    def end(self) -> None:
        """Note that the slot has done with the message, one way or the other."""
        with self._lock:
            self._delivery = self._current = None

    def _put(self, delivery: Delivery, chunk: Chunk, runtimes: Sequence[Runtime], landing: Landing) -> None:
        begun = {strategy_id for dispatch_id, strategy_id in self._begun if dispatch_id == landing.dispatch_id}
        loud, quiet = _part(landing.outcomes, begun)
        results: list[Outcome | Attempt] = [*loud, *landing.attempts]
        for result in results:
            told = Told(delivery, chunk, runtimes, result, result.strategy_id in begun)
            self._dropped += EVENTS_PER_JOB * self._shelf.put_loud(told)
        for outcome in self._sample(quiet):
            self._shelf.put_quiet(Told(delivery, chunk, runtimes, outcome, is_begun=False))

    def _sample(self, quiet: Sequence[Outcome]) -> Sequence[Outcome]:
        """Pick as many as the rate and the buffer allow."""
        allowed = self._rate.take(len(quiet))
        shown = min(allowed, self._shelf.room)
        self._sampled += EVENTS_PER_JOB * (len(quiet) - allowed)
        self._dropped += EVENTS_PER_JOB * (allowed - shown)
        return quiet if shown == len(quiet) else random.sample(quiet, shown)

    def _run(self) -> None:
        while not self._is_closing:
            self._busy.wait()
            self._hurry.wait(self._every_s)
            self._hurry.clear()
            self._try_flush()
        self._try_flush()  # what landed during the last one
        self._close()

    def _try_flush(self) -> None:
        try:
            self._flush()
        except Exception:  # what cannot be told of one job must not silence all that come after it
            log.exception("events could not be built")

    def _flush(self) -> None:
        with self._lock:
            events = self._look()
            told = self._shelf.empty()
            sampled, dropped = self._sampled, self._dropped
            self._sampled = self._dropped = 0
            if not told and self._delivery is None:
                self._busy.clear()
        events += [event for each in told for event in build_events(each)]
        is_sent = not events or self._deliver(events)
        self._tally.add_events(len(events) * is_sent, sampled, dropped + len(events) * (not is_sent))

    def _deliver(self, events: Sequence[Event]) -> bool:
        """Send events in one message; return whether they left."""
        try:
            self._send(events[0]["hostname"], events)
        except BrokerUnavailableError as error:
            self._miss(str(error))
            return False
        self._recover()
        return True

    def _look(self) -> list[Event]:
        """Build the events of a job that ran at the last look and still does."""
        last, self._looked_at = self._looked_at, None
        strategy_id = self._running()
        if self._delivery is None or self._current is None or not strategy_id:
            return []
        chunk, runtimes, since = self._current
        if last is None or last[0] is not chunk or last[1] != strategy_id:
            # in a chunk nobody has noted when it began: that it is seen for the first time is close enough
            self._looked_at = (chunk, strategy_id, since if len(chunk.jobs) == 1 else time.time())
            return []
        self._looked_at = last
        key = (chunk.dispatch_id, strategy_id)
        if key in self._begun:
            return []
        self._begun.add(key)
        return build_begun(self._delivery, chunk, runtimes, strategy_id, last[2])

    def _miss(self, reason: str) -> None:
        # one line for each change, not one for each list
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("events are lost while Redis is away", reason=reason)

    def _recover(self) -> None:
        if self._away_since is not None:
            log.info("events are sent again", away_s=round(time.monotonic() - self._away_since, 1))
            self._away_since = None


def _part(outcomes: Sequence[Outcome], begun: Collection[int]) -> tuple[Sequence[Outcome], Sequence[Outcome]]:
    """Tell outcomes that must be shown from those of which some may be left out."""
    loud = [each for each in outcomes if each.status not in _QUIET or (begun and each.strategy_id in begun)]
    if not loud:
        return (), outcomes
    shown = {each.strategy_id for each in loud}
    return loud, [each for each in outcomes if each.strategy_id not in shown]
