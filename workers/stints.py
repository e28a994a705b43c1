"""What stints of work on a run have in common: how long they last, and when they end early."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from psycopg import Connection as DriverConnection

from app.domain.runs import RunState
from app.storage.units import load_state

T = TypeVar("T")

#: Seconds of work after which a ticket is given back.
STINT_S = 1.0

#: Seconds between two looks at whether the run still runs, within a unit too.
LOOK_EVERY_S = 0.25


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
        self._looked_at = time.perf_counter()

    def look(self) -> None:
        """Look, if it is time to.

        Raises:
            StoppedError: it does not run.
        """
        now = time.perf_counter()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if self._within(lambda driver: load_state(driver, self._run_id)) is not RunState.RUNNING:
            raise StoppedError
