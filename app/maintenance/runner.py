"""The loop: claims the lead, runs each service when it is due, and waits when Postgres or Redis is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

import structlog

from app.errors import BrokerUnavailableError, StorageUnavailableError
from app.maintenance.base import Begin, Report, Service
from app.maintenance.leadership import Leadership
from app.maintenance.metrics import ACTIONS

log = structlog.get_logger()

#: Seconds between two tries to become the active process, and between two looks at the lock of the active one.
LOOK_EVERY_S = 0.5

#: Seconds until a service runs again that has more to do: as often as a producer looks for room in a queue.
MORE_AFTER_S = 0.005

#: Longest wait between two tries when Postgres or Redis is away, seconds.
BACKOFF_CAP_S = 2.0


@dataclass
class Turn:
    """One service and when it is due."""

    service: Service
    due: float = 0.0
    """In seconds of the monotonic clock."""
    failures: int = 0
    """Rounds in a row that failed."""

    def after(self, report: Report) -> float:
        """Return the seconds until the next round after one that worked."""
        self.failures = 0
        return MORE_AFTER_S if report.has_more else self.service.every_s

    def after_failure(self) -> float:
        """Return the seconds until the next round after one that failed."""
        self.failures += 1
        return backoff_s(self.failures)


def backoff_s(failures: int) -> float:
    """Return how long to wait after a number of failures in a row (from 1), seconds."""
    return min(BACKOFF_CAP_S, 0.1 * 2.0 ** min(failures - 1, 10))


class Clock:
    """The time of Postgres, asked for now and then and carried on in between.

    Args:
        read: asks Postgres.

    Raises:
        StorageUnavailableError: the session has ended.
    """

    def __init__(self, read: Callable[[], datetime]) -> None:
        self._read = read
        self._answer, self._asked = read(), time.monotonic()

    def now(self) -> datetime:
        """Return the current moment.

        Raises:
            StorageUnavailableError: it was time to ask, and the session has ended.
        """
        if time.monotonic() - self._asked > LOOK_EVERY_S:
            self._answer, self._asked = self._read(), time.monotonic()
        return self._answer + timedelta(seconds=time.monotonic() - self._asked)


class Runner:
    """Runs the services for as long as this process is the active one.

    Args:
        leadership: this process's claim.
        build: makes the services, anew for each time this process becomes the active one.
    """

    def __init__(self, leadership: Leadership, build: Callable[[Begin], Sequence[Service]]) -> None:
        self._leadership = leadership
        self._build = build
        self._state = ""

    def run(self, stop: Event) -> None:
        """Run until `stop` is set."""
        failures = 0
        while not stop.is_set():
            try:
                if self._leadership.claim():
                    failures = 0
                    self._lead(stop)
                else:
                    failures = 0
                    self._say("standing by", "another maintenance process is active")
            except StorageUnavailableError as error:
                failures += 1
                self._leadership.resign()
                self._say("waiting", str(error).strip().splitlines()[0])
            stop.wait(backoff_s(failures) if failures else LOOK_EVERY_S)
        self._leadership.resign()
        self._say("stopped", "asked to")

    def _lead(self, stop: Event) -> None:
        self._say("active", "this process has the lock")
        clock = Clock(self._leadership.read_clock)
        turns = [Turn(service) for service in self._build(self._leadership.begin)]
        while not stop.is_set():
            clock.now()
            for turn in turns:
                if turn.due <= time.monotonic() and not stop.is_set():
                    turn.due = time.monotonic() + self._run(turn, clock.now())
            soonest = min(turn.due for turn in turns) - time.monotonic()
            stop.wait(min(LOOK_EVERY_S, max(0.0, soonest)))

    def _run(self, turn: Turn, now: datetime) -> float:
        """Run one round; return the seconds until the next."""
        name = turn.service.name
        try:
            report = turn.service.run_once(now)
        except StorageUnavailableError:
            raise
        except BrokerUnavailableError as error:
            if not turn.failures:
                log.warning("maintenance waits for Redis", service=name, reason=str(error))
            return turn.after_failure()
        except Exception:  # one service that cannot go on must not stop the others
            if not turn.failures:
                log.exception("maintenance service failed", service=name)
            return turn.after_failure()
        if turn.failures:
            log.info("maintenance service works again", service=name)
        _tell(name, report)
        return turn.after(report)

    def _say(self, state: str, reason: str) -> None:
        if state != self._state:
            self._state = state
            (log.warning if state == "waiting" else log.info)(f"maintenance {state}", reason=reason)


def _tell(name: str, report: Report) -> None:
    for action, count in report.done.items():
        ACTIONS.labels(name, action).inc(count)
    (log.info if report.done else log.debug)("maintenance", service=name, **report.done)
