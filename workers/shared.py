"""What the processes of one node share: memory made before the fork, that the main process and all slots see.

Every cell has one writer, so that nothing is locked: a slot that is killed while it held a lock would stop the node.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from enum import IntEnum

from app.settings import MOST_SLOTS

#: Numbers kept of what each slot runs.
CELLS = 3
#: Strategies suspected at a time, and for how many seconds: by then its own breaker speaks for it.
MOST_SUSPECTS, SUSPECTED_FOR_S = 16, 30
#: Revoked jobs that are remembered, the oldest forgotten first: what an operator revokes while messages wait.
MOST_REVOKED = 4096


class _Count(IntEnum):
    PROCESSED = 0
    ERRORS = 1
    EVENTS_SENT = 2
    EVENTS_SAMPLED = 3
    EVENTS_DROPPED = 4


class Tally:
    """Counts of a node since it started: each slot, and whoever replaces it, adds to cells of its own."""

    def __init__(self) -> None:
        self._cells = multiprocessing.Array("q", len(_Count) * MOST_SLOTS, lock=False)
        self._at = 0

    def open(self, slot: int) -> None:
        """Take the cells of a slot, in its process.

        Args:
            slot: its number in the pool, from 0.
        """
        self._at = len(_Count) * slot

    def add(self, processed: int, errors: int) -> None:
        """Count jobs and units of runs that ended, and how many of them did not succeed."""
        self._add(_Count.PROCESSED, processed)
        self._add(_Count.ERRORS, errors)

    def add_events(self, sent: int, sampled: int, dropped: int) -> None:
        """Count events: sent, left out because of the rate, and lost. One thread of a slot calls this."""
        self._add(_Count.EVENTS_SENT, sent)
        self._add(_Count.EVENTS_SAMPLED, sampled)
        self._add(_Count.EVENTS_DROPPED, dropped)

    @property
    def processed(self) -> int:
        """Jobs and units of runs ended."""
        return self._sum(_Count.PROCESSED)

    @property
    def errors(self) -> int:
        """Jobs and units of runs ended without success."""
        return self._sum(_Count.ERRORS)

    @property
    def events_sent(self) -> int:
        """Events of jobs that left."""
        return self._sum(_Count.EVENTS_SENT)

    @property
    def events_sampled(self) -> int:
        """Events of successes that were not sent, because there were more than the rate allows."""
        return self._sum(_Count.EVENTS_SAMPLED)

    @property
    def events_dropped(self) -> int:
        """Events that were lost: the buffer was full or Redis away."""
        return self._sum(_Count.EVENTS_DROPPED)

    def _add(self, what: _Count, number: int) -> None:
        if number:
            self._cells[self._at + what] += number

    def _sum(self, what: _Count) -> int:
        return sum(self._cells[what :: len(_Count)])


@dataclass(frozen=True, slots=True)
class Running:
    """What a slot executes."""

    strategy_id: int
    timeout_s: float
    """Its soft limit."""


class Present:
    """What each slot of a node executes at this moment, so that the main process can tell why it died.

    A slot writes only its own cells.
    """

    def __init__(self) -> None:
        # process id, strategy id (0 for none) and soft limit in ms of each slot; no lock: one writer a cell
        self._cells = multiprocessing.Array("q", CELLS * MOST_SLOTS, lock=False)
        self._at = 0
        # strategy id and epoch seconds until which it is suspected; the main process writes, slots read
        self._suspects = multiprocessing.Array("q", 2 * MOST_SUSPECTS, lock=False)
        self._next_suspect = 0

    def suspect(self, strategy_id: int) -> None:
        """Note in the main process that a slot died in a strategy's code, among other jobs."""
        at = 2 * (self._next_suspect % MOST_SUSPECTS)
        self._suspects[at], self._suspects[at + 1] = strategy_id, int(time.time() + SUSPECTED_FOR_S)
        self._next_suspect += 1

    def suspects(self) -> frozenset[int]:
        """Return the strategies that should not share a chunk now: one may take its neighbours' slot down again."""
        cells, now = self._suspects[:], time.time()
        return frozenset(cells[at] for at in range(0, len(cells), 2) if cells[at + 1] > now)

    def open(self, slot: int, pid: int) -> None:
        """Take the cells of a slot, in its process.

        Args:
            slot: its number in the pool, from 0.
            pid: its process id.
        """
        for at in range(0, CELLS * MOST_SLOTS, CELLS):
            if self._cells[at] == pid:  # of a slot that is gone: process ids come back
                self._cells[at] = 0
        self._at = CELLS * slot
        self.enter(0, 0)
        self._cells[self._at] = pid

    def enter(self, strategy_id: int, timeout_ms: int) -> None:
        """Note which strategy this slot runs now, and its soft limit; 0 for none."""
        self._cells[self._at + 2] = timeout_ms
        self._cells[self._at + 1] = strategy_id

    def running(self) -> int:
        """Return the strategy whose code this slot is in; 0 for none."""
        return int(self._cells[self._at + 1])

    def of(self, pid: int | None) -> Running | None:
        """Return what a slot runs, or ran when it died; None when it was in no strategy's code."""
        cells: list[int] = self._cells[:]
        for at in range(0, len(cells), CELLS):
            if pid and cells[at] == pid:
                return Running(cells[at + 1], cells[at + 2] / 1000) if cells[at + 1] else None
        return None


class Revoked:
    """Jobs that an operator took back: the main process hears of them, its slots look before they begin a job.

    A ring of (dispatch, strategy) pairs behind a number that is odd while the main process writes.
    """

    def __init__(self) -> None:
        self._cells = multiprocessing.Array("q", 1 + 2 * MOST_REVOKED, lock=False)
        self._next = 0
        self._seen = 0
        self._known: frozenset[tuple[int, int]] = frozenset()

    def add(self, dispatch_id: int, strategy_id: int) -> None:
        """Note a job; in the main process."""
        at = 1 + 2 * (self._next % MOST_REVOKED)
        self._cells[0] += 1
        self._cells[at], self._cells[at + 1] = dispatch_id, strategy_id
        self._cells[0] += 1
        self._next += 1

    def has(self, dispatch_id: int, strategy_id: int) -> bool:
        """Tell whether a job was taken back; costs next to nothing while nobody revokes."""
        if self._cells[0] != self._seen:
            self._read()
        return (dispatch_id, strategy_id) in self._known

    def _read(self) -> None:
        before, *pairs = self._cells[:]
        if before % 2 == 0 and self._cells[0] == before:
            self._known = frozenset(zip(pairs[::2], pairs[1::2], strict=True))
            self._seen = before


class Shared:
    """All that the processes of a node share."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.present = Present()
        self.revoked = Revoked()

    def open(self, slot: int, pid: int) -> None:
        """Take the cells of a slot, in its process.

        Args:
            slot: its number in the pool, from 0.
            pid: its process id.
        """
        self.tally.open(slot)
        self.present.open(slot, pid)
