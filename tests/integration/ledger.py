"""What integration tests of storage do again and again: dispatch candles, land outcomes, do things at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Engine, text

from app.domain.decisions import Decision, DecisionRules
from app.domain.jobs import Outcome
from app.producer.dispatch import Dispatcher
from app.settings import DispatchSettings
from app.storage.landing import Attempt, land

RULES = DecisionRules(quorum=0.5, threshold=0.1)

T = TypeVar("T")


def build_dispatcher(engine: Engine, *, jobs_in_chunk: int = 32) -> Dispatcher:
    """Build a dispatcher as a producer has it, for which no strategy is slow: a busy machine must not split chunks."""
    return Dispatcher(
        engine,
        "test",
        settings=DispatchSettings(chunk_size=jobs_in_chunk, chunk_budget_ms=60_000, trusted_after=0),
        hard_grace_s=5.0,
        rules=RULES,
        silence=timedelta(seconds=3),
    )


@contextmanager
def driver_of(engine: Engine) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection as a slot has it: psycopg's own, in autocommit."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as driver:
        yield driver


def land_on(
    engine: Engine, dispatch_id: int, outcomes: Sequence[Outcome], attempts: Sequence[Attempt] = ()
) -> Decision | None:
    """Land a chunk over a connection of its own."""
    with driver_of(engine) as driver:
        return land(driver, dispatch_id, "test", outcomes, attempts, RULES)


def together(*actions: Callable[[], T]) -> list[T]:
    """Do everything at the same time, each in a thread; return the answers, or raise what one of them raised."""
    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(action) for action in actions]]


def rows(engine: Engine, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """Run a query and return its rows."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), values)]
