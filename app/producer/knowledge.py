"""What the producer's planner knows, kept up to date from Postgres; and its plans, stored for those who ask why."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection

from app.broker import QUEUES
from app.domain.strategies import RegisteredStrategy
from app.producer.planner import Plan, Planner
from app.storage.costs import MOST_DISPATCHES, load_complete, load_samples
from app.storage.nodes import count_slots
from app.storage.plans import save_plan

#: Seconds between two looks at how jobs went: at most, and at first, because new strategies travel alone until then.
LOOK_EVERY_S, FIRST_LOOKS_EVERY_S = 2.0, 0.1

#: Dispatches that one look learns from: a few thousand outcomes, milliseconds of Postgres' time.
MOST_LEARNED_FROM = 64


#: Seconds for which new strategies are waited for: one whose jobs never end stays new.
LEARNS_FOR_S = 10.0


class Knowledge:
    """Keeps a planner up to date.

    Args:
        planner: told what is found.
        silence: time without a sign of life after which a node counts as gone.
    """

    def __init__(self, planner: Planner, silence: timedelta) -> None:
        self._planner = planner
        self._silence = silence
        self._looked_at: float | None = None
        self._every_s = FIRST_LOOKS_EVERY_S
        self._learns_until = math.inf
        self._seen: deque[int] = deque(maxlen=2 * MOST_DISPATCHES)

    @property
    def is_learning(self) -> bool:
        """Whether some strategy that is asked is new, and was not for long."""
        return self._planner.has_new and time.monotonic() < self._learns_until

    def hurry(self) -> None:
        """Look often again: there may be new strategies."""
        self._every_s = FIRST_LOOKS_EVERY_S
        self._learns_until = time.monotonic() + LEARNS_FOR_S

    def refresh(self, connection: Connection, strategies: Sequence[RegisteredStrategy]) -> bool:
        """Look how jobs went, if it is time to; tell whether it was.

        Args:
            connection: any.
            strategies: those that are active.
        """
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < self._every_s:
            return False
        elapsed_s = self._every_s if self._looked_at is None else now - self._looked_at
        self._looked_at, self._every_s = now, min(2 * self._every_s, LOOK_EVERY_S)
        seen = set(self._seen)
        fresh = [number for number in load_complete(connection) if number not in seen][:MOST_LEARNED_FROM]
        self._seen.extend(fresh)
        samples = load_samples(connection, fresh)
        self._planner.learn(samples, count_slots(connection, self._silence, QUEUES), elapsed_s, strategies)
        return True


class StoredPlans:
    """The plans that Postgres holds: each is stored once, in the transaction of its first dispatch."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._unconfirmed: dict[str, int] = {}

    def begin(self) -> None:
        """Note that a transaction begins; what one before it stored, and did not commit, is forgotten."""
        self._unconfirmed.clear()

    def store(self, connection: Connection, plan: Plan) -> int:
        """Return the id of a plan, stored in the caller's transaction if it is not known."""
        known = self._ids.get(plan.digest) or self._unconfirmed.get(plan.digest)
        if known is None:
            known = self._unconfirmed[plan.digest] = save_plan(connection, plan.digest, plan.described())
        return known

    def confirm(self) -> None:
        """Note that the transaction is committed."""
        self._ids |= self._unconfirmed
