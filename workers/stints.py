"""What stints of work on a run have in common: how long they last, and when they end early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from psycopg import Connection as DriverConnection

from app.domain.runs import RunState
from app.storage.units import load_sight

T = TypeVar("T")

#: Seconds of work after which a ticket is given back.
STINT_S = 1.0

#: Seconds between two looks at whether the run still runs, within a unit too.
LOOK_EVERY_S = 0.25

#: Time after a dispatched candle for which live jobs are taken to be under way.
LIVE_WITHIN = timedelta(seconds=2)

#: How long a slot rests after it had Postgres work for it while live jobs are under way, in multiples of that work, and
#: at most, seconds. Slots of runs have the lowest priority, but Postgres works for them at that of live jobs.
REST, LONGEST_REST_S = 5.0, 0.25


class Within(Protocol):
    """Does something on the slot's driver connection."""

    def __call__(self, action: Callable[[DriverConnection[Any]], T], /) -> T:
        """Do it."""
        ...


class StoppedError(BaseException):
    """The run does not run any more; not an Exception, so that no strategy can swallow it."""


class Lookout:
    """Looks at whether a run still runs.

    Args:
        within: does something on the slot's connection.
        run_id: of the run.
    """

    def __init__(self, within: Within, run_id: int) -> None:
        self._within = within
        self._run_id = run_id
        self._looked_at = -math.inf
        self._is_live = False

    def look(self) -> None:
        """Look, if it is time to.

        Raises:
            StoppedError: it does not run.
        """
        now = time.perf_counter()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        seen = self._within(lambda driver: load_sight(driver, self._run_id, LIVE_WITHIN))
        if seen is None or seen.state is not RunState.RUNNING:
            raise StoppedError
        self._is_live = seen.is_live

    def rest(self, worked_s: float) -> None:
        """Leave Postgres to live jobs for a moment, if there are any.

        Args:
            worked_s: for which it has just worked for this slot.
        """
        if self._is_live:
            time.sleep(min(REST * worked_s, LONGEST_REST_S))
