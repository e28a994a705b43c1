"""Following runs: one task looks at every run that somebody watches, and all who watch it share what it saw.

Nobody who watches holds a thread or a connection to Postgres: a hundred watchers of a run cost as much as one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import structlog
from anyio import CapacityLimiter, to_thread

from app.domain.runs import ENDED
from app.errors import CandlefleetError, TransientError, UnknownRunError
from app.operations import Operations
from app.operations_runs import load
from app.operations_runs_shown import describe_progress

log = structlog.get_logger()

#: Seconds between two looks at what is watched.
LOOK_EVERY_S = 0.5

#: Seconds without news after which a watcher is told that there are none: proxies cut what is silent for a minute.
NO_NEWS_S = 10.0

#: What still changes of a run that has ended: slots leave it a moment later, and its details go months later.
MOVING = ("slots", "trimmed")


class Seen(NamedTuple):
    """How far a run was."""

    id: str
    """Of what is in it: equal for equal progress, and for an end that was told before, in every process of the API."""
    progress: str
    """JSON."""
    is_end: bool


class TooManyError(TransientError):
    """As many watch as may."""


def look(operations: Operations, run_id: int) -> Seen:
    """Look at a run.

    Raises:
        UnknownRunError: there is none of that number.
        StorageUnavailableError: Postgres is away.
    """
    run, progress = load(operations, run_id)
    document: dict[str, Any] = {"run": run_id, **describe_progress(run, progress)}
    is_end = progress.state in ENDED
    meant = _end_of(document, run.finished_at) if is_end else document
    return Seen(_digest(meant), json.dumps(document, allow_nan=False), is_end)


def _end_of(document: dict[str, Any], finished_at: datetime | None) -> dict[str, Any]:
    """Return what is final of a run that has ended: who was told its end is not told it again, unless it went on."""
    final = {name: value for name, value in document.items() if name not in MOVING}
    return {**final, "finished_at": finished_at and finished_at.isoformat()}


def _digest(document: dict[str, Any]) -> str:
    return blake2b(json.dumps(document, allow_nan=False).encode(), digest_size=8).hexdigest()


class _Watched:
    """A run that somebody watches."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.watchers = 0
        self.news = asyncio.Event()

    def tell(self) -> None:
        """Wake whoever waits for news."""
        self.news.set()
        self.news = asyncio.Event()


class Follower:
    """Looks at the runs that are watched; lives in one event loop.

    Args:
        look: at a run; called in a thread.
        most: watchers at a time.
        every_s: seconds between two looks.
    """

    def __init__(self, look: Callable[[int], Seen], most: int, every_s: float = LOOK_EVERY_S) -> None:
        self._look = look
        self._most = most
        self._every_s = every_s
        self._watched: dict[int, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None
        self._is_closing = False
        # one connection to Postgres at most, and none of the threads that answer requests
        self._thread = CapacityLimiter(1)

    @property
    def watchers(self) -> int:
        """How many watch."""
        return sum(each.watchers for each in self._watched.values())

    def require_room(self) -> None:
        """Require that one more may watch.

        Raises:
            TooManyError: as many as may.
        """
        if self.watchers >= self._most:
            raise TooManyError(f"{self._most} watch already (CANDLEFLEET_API__STREAMS)", LOOK_EVERY_S)

    async def follow(self, run_id: int, first: Seen) -> AsyncGenerator[Seen | None]:
        """Yield what is seen of a run until its end, None now and then when it is nothing new.

        A slow reader misses what was in between: whatever is seen is the whole.

        Args:
            run_id: of the run.
            first: what was seen already, yielded first.
        """
        watched = self._enter(run_id, first)
        seen: Seen | None = first
        try:
            while not self._is_closing:
                news = watched.news
                yield seen
                if seen is not None and seen.is_end:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), NO_NEWS_S)
                seen = watched.seen if news.is_set() else None
        finally:
            self._leave(run_id, watched)

    async def close(self) -> None:
        """End everybody's watching. Idempotent."""
        self._is_closing = True
        for watched in self._watched.values():
            watched.tell()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def _enter(self, run_id: int, first: Seen) -> _Watched:
        watched = self._watched.setdefault(run_id, _Watched(first))
        watched.watchers += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        return watched

    def _leave(self, run_id: int, watched: _Watched) -> None:
        watched.watchers -= 1
        if not watched.watchers:
            del self._watched[run_id]

    async def _look_on(self) -> None:
        while self._watched and not self._is_closing:
            for run_id in list(self._watched):
                await self._look_at(run_id)
            await asyncio.sleep(self._every_s)

    async def _look_at(self, run_id: int) -> None:
        try:
            seen = await to_thread.run_sync(self._look, run_id, limiter=self._thread)
        except UnknownRunError:  # it ended and was deleted since the last look: whoever asks again hears that
            if run_id not in self._watched:
                return
            seen = self._watched[run_id].seen._replace(is_end=True)
        except CandlefleetError as error:  # Postgres is away: those who watch wait with us
            log.warning("cannot look at a run", run=run_id, error=str(error))
            return
        except Exception:  # a fault of ours must not leave all others without news
            log.exception("cannot look at a run", run=run_id)
            return
        watched = self._watched.get(run_id)
        if watched is not None and watched.seen != seen:
            watched.seen = seen
            watched.tell()
