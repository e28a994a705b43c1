"""Breakers in Postgres: read and changed in the transaction of the outcome that changes them.

Rows are always locked in the order of their strategy's id, so that two landings never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection as DriverConnection
from sqlalchemy import Connection, delete, func, select, text

from app.domain.breakers import Breaker, BreakerRules, BreakerState
from app.storage.schema import attempts, breakers, strategies

_UNEASY = """
    SELECT b.strategy_id, b.state, b.failures, b.trips, b.crashes, b.open_until
    FROM breakers b
    WHERE b.strategy_id = ANY(%(ids)s) AND (b.failures > 0 OR b.state <> 'closed')
    ORDER BY b.strategy_id
    FOR UPDATE
"""

_ONE = """
    SELECT b.strategy_id, b.state, b.failures, b.trips, b.crashes, b.open_until
    FROM breakers b WHERE b.strategy_id = %(strategy_id)s FOR UPDATE
"""

_WRITE = """
    INSERT INTO breakers (strategy_id, state, failures, trips, crashes, open_until)
    SELECT * FROM unnest(%(ids)s::int[], %(states)s::text[], %(failures)s::int[], %(trips)s::int[],
                         %(crashes)s::int[], %(open_until)s::timestamptz[]) AS fresh ORDER BY 1
    ON CONFLICT (strategy_id) DO UPDATE SET
        state = excluded.state, failures = excluded.failures, trips = excluded.trips, crashes = excluded.crashes,
        open_until = excluded.open_until, changed_at = clock_timestamp()
"""

_QUARANTINE = """
    WITH stopped AS (
        UPDATE strategies SET status = 'quarantined', updated_at = clock_timestamp()
        WHERE id = %(strategy_id)s AND status = 'active' RETURNING id
    )
    UPDATE catalogue SET version = version + 1 WHERE EXISTS (SELECT FROM stopped)
"""

_START_PROBES = text("""
    UPDATE breakers SET state = 'half_open', open_until = NULL, changed_at = clock_timestamp()
    WHERE strategy_id = ANY(:ids) AND state = 'open' AND open_until <= clock_timestamp()
    RETURNING strategy_id
""")


def lock_uneasy(driver: DriverConnection[Any], strategy_ids: Iterable[int]) -> dict[int, Breaker]:
    """Load, and lock in the caller's transaction, the breakers of some strategies that are not at rest."""
    rows = driver.execute(_UNEASY, {"ids": sorted(strategy_ids)}).fetchall()
    return {row[0]: _breaker(row) for row in rows}


def write(driver: DriverConnection[Any], changed: Sequence[Breaker]) -> None:
    """Write changed breakers, in the caller's transaction."""
    if changed:
        driver.execute(
            _WRITE,
            {
                "ids": [breaker.strategy_id for breaker in changed],
                "states": [breaker.state.value for breaker in changed],
                "failures": [breaker.failures for breaker in changed],
                "trips": [breaker.trips for breaker in changed],
                "crashes": [breaker.crashes for breaker in changed],
                "open_until": [breaker.open_until for breaker in changed],
            },
        )


def record_crash(driver: DriverConnection[Any], strategy_id: int, rules: BreakerRules) -> None:
    """Note that a strategy killed its slot: its breaker opens, and after too many it is quarantined."""
    row = driver.execute(_ONE, {"strategy_id": strategy_id}).fetchone()
    breaker = _breaker(row) if row else Breaker(strategy_id=strategy_id)
    crashed = breaker.crash(datetime.now(UTC), rules)
    write(driver, [crashed])
    if crashed.crashes >= rules.crashes:
        driver.execute(_QUARANTINE, {"strategy_id": strategy_id})


def load_blocked(connection: Connection) -> dict[int, bool]:
    """Return the strategies whose breaker is not closed, and whether a probe is due."""
    due = (breakers.c.state == BreakerState.OPEN.value) & (breakers.c.open_until <= func.clock_timestamp())
    query = select(breakers.c.strategy_id, due).where(breakers.c.state != BreakerState.CLOSED.value)
    return {row[0]: bool(row[1]) for row in connection.execute(query)}


def load_stopped(connection: Connection) -> frozenset[int]:
    """Return the strategies whose breaker is open; one that is half open has a probe on its way."""
    query = select(breakers.c.strategy_id).where(breakers.c.state == BreakerState.OPEN.value)
    return frozenset(connection.execute(query).scalars())


def load_tried(connection: Connection, dispatch_id: int) -> frozenset[int]:
    """Return the strategies that have failed at a dispatch and will be, or were, tried again."""
    query = select(attempts.c.strategy_id).where(attempts.c.dispatch_id == dispatch_id)
    return frozenset(connection.execute(query).scalars())


def start_probes(connection: Connection, strategy_ids: Iterable[int]) -> frozenset[int]:
    """Let one job of each strategy through, if its time is over; return those that may go."""
    wanted = sorted(strategy_ids)
    return frozenset(connection.execute(_START_PROBES, {"ids": wanted}).scalars()) if wanted else frozenset()


def close_breaker(connection: Connection, strategy_id: int) -> None:
    """Forget everything that was held against a strategy. Idempotent."""
    connection.execute(delete(breakers).where(breakers.c.strategy_id == strategy_id))


def list_breakers(connection: Connection) -> list[dict[str, Any]]:
    """Load the breakers that are not at rest, with their strategy's name and status."""
    query = (
        select(strategies.c.name, strategies.c.status, breakers)
        .join_from(breakers, strategies, strategies.c.id == breakers.c.strategy_id)
        .where((breakers.c.state != BreakerState.CLOSED.value) | (breakers.c.failures > 0) | (breakers.c.crashes > 0))
        .order_by(strategies.c.name)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def _breaker(row: Sequence[Any]) -> Breaker:
    names = ("strategy_id", "state", "failures", "trips", "crashes", "open_until")
    return Breaker(**dict(zip(names, row, strict=True)))
