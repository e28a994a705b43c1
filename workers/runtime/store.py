"""The database connection of one slot: opened after the fork, opened again when Postgres comes back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InvalidRequestError

from app.domain.candles import Timeframe
from app.domain.decisions import Decision, DecisionRules
from app.domain.jobs import JobKey
from app.errors import JobTimeoutError, StorageUnavailableError
from app.storage.breakers import load_stopped, load_tried
from app.storage.candles import load_window
from app.storage.dead_letters import save_dead_letter
from app.storage.engine import driver_of, translated
from app.storage.landing import Landing, land_all
from app.storage.ledger import load_ended
from app.storage.moving import Moving
from app.storage.nodes import answer_canary
from app.storage.strategies import Retired, Revision, load_retired, load_revisions
from workers.runtime.limits import clock

T = TypeVar("T")


class SlotStore:
    """What a slot reads and writes. One connection, in autocommit: each read is one round trip.

    Args:
        engine: of the slot.
        rules: how decisions are made.
        bound_s: longest wait for one answer. A server that neither answers nor refuses would hold the slot until its
            hard limit, and strategies would be blamed for it.
    """

    def __init__(self, engine: Engine, rules: DecisionRules, bound_s: float) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._rules = rules
        self._bound_s = bound_s
        self._connection: Connection | None = None

    def load_rows(
        self, symbol: str, timeframe: Timeframe, *, until: datetime, count: int, after: datetime | None
    ) -> Sequence[tuple[Any, ...]]:
        """Load candles, oldest first; see `app.storage.candles.load_window`."""
        return self._with(lambda connection: load_window(connection, symbol, timeframe.value, until, count, after))

    def load_revisions(self, keys: Sequence[JobKey]) -> dict[JobKey, Revision]:
        """Load what revisions compute; see `app.storage.strategies.load_revisions`."""
        return self._with(lambda connection: load_revisions(connection, keys))

    def land_all(self, landings: Sequence[Landing], worker: str, moving: Moving | None = None) -> dict[int, Decision]:
        """Record chunks; see `app.storage.landing.land_all`. Idempotent."""
        return self._with(lambda connection: land_all(driver_of(connection), landings, worker, self._rules, moving))

    def load_ended(self, dispatch_ids: Sequence[int]) -> dict[int, frozenset[int]]:
        """Load which strategies of some dispatches have an outcome."""
        return self._with(lambda connection: load_ended(connection, dispatch_ids))

    def load_stopped(self) -> frozenset[int]:
        """Load the strategies whose breaker is open; one that is half open has a probe on its way."""
        return self._with(load_stopped)

    def load_tried(self, dispatch_id: int) -> frozenset[int]:
        """Load the strategies that have failed at a dispatch and will be, or were, tried again."""
        return self._with(lambda connection: load_tried(connection, dispatch_id))

    def load_retired(self, keys: Collection[JobKey]) -> Retired:
        """Load which revisions get no new jobs; see `app.storage.strategies.load_retired`."""
        return self._with(lambda connection: load_retired(connection, keys))

    def keep_dead_letter(self, reason: str, body: str, worker: str) -> None:
        """Keep a message that makes no sense."""
        self._with(lambda connection: save_dead_letter(connection, reason, body, worker))

    def answer_canary(self, node: str) -> None:
        """Note that a node's canary came through."""
        self._with(lambda connection: answer_canary(connection, node))

    def within(self, action: Callable[[Connection], T]) -> T:
        """Do something else on the slot's connection."""
        return self._with(action)

    def close(self) -> None:
        """Give the connection back. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _with(self, action: Callable[[Connection], T]) -> T:
        with self._healing(), clock.bounded(self._bound_s):
            if self._connection is None:
                self._connection = self._engine.connect()
            return action(self._connection)

    @contextmanager
    def _healing(self) -> Iterator[None]:
        try:
            with translated():
                yield
        except psycopg.OperationalError as error:
            self._forget()
            raise StorageUnavailableError(f"Postgres went away: {error}") from error
        except JobTimeoutError as error:
            self._forget()
            raise StorageUnavailableError(f"Postgres did not answer within {self._bound_s:g} s") from error
        except StorageUnavailableError:
            self._forget()
            raise

    def _forget(self) -> None:
        if self._connection is not None:
            try:
                self._connection.invalidate()
                self._connection.close()
            except InvalidRequestError:  # it noticed by itself
                pass
            self._connection = None
