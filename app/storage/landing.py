"""Landing: outcomes, failed attempts, the dispatch's count, its decision and the breakers, in one transaction.

A message is landed as a whole, however many candles its jobs belong to: its rows travel as arrays in one statement,
and what follows from them in a second one. These two round trips are what the system's speed is made of. Whatever is
recorded already changes nothing, so a message may be delivered any number of times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from psycopg import Connection as DriverConnection
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection

from app.domain.breakers import Breaker, judge
from app.domain.decisions import ClosedBy, Decision, DecisionRules, Heard, decide
from app.domain.jobs import JobKey, Outcome, OutcomeStatus
from app.errors import MessageError, UnknownDispatchError
from app.storage import breakers
from app.storage.arrays import INT8, build_array
from app.storage.engine import driver_of
from app.storage.landing_values import Attempt, Landing, decision_values, land_values, strategies_of
from app.storage.moving import Moving

__all__ = ["Attempt", "Landing", "land", "land_all", "land_ends"]

#: The outcomes, the failed attempts and each dispatch's count. Dispatches are locked in the order of their ids, so that
#: two landings never wait for each other. What a decision needs travels only when the last outcome landed. A dispatch
#: that does not ask one of the strategies is not locked, which the caller takes for a refusal; comparing the arrays
#: takes a microsecond for 50 strategies and 26 for 500. An array that is NULL stands for a column of NULLs.
_LAND = """
    WITH asked AS (
        SELECT d.id
        FROM unnest(%(ids)s::bigint[], %(asked)s::text[]) AS landing(id, strategies)
        JOIN dispatches d ON d.id = landing.id
        WHERE d.strategy_ids @> landing.strategies::int[]
          AND (%(may_complete)s OR d.landed + cardinality(landing.strategies::int[]) < d.expected)
        ORDER BY d.id
        FOR UPDATE OF d
    ), fresh AS (
        INSERT INTO outcomes (dispatch_id, strategy_id, strategy_revision, status, action, strength, edge, detail,
                              error_class, error, attempt, queued_ms, processing_ms, worker)
        SELECT o.dispatch_id, o.strategy_id, o.revision,
               (%(statuses)s::text[])[o.status], o.action, o.strength, o.edge, o.detail::jsonb,
               o.error_class, o.error, o.attempt, o.queued_ms, o.processing_ms, %(worker)s
        FROM unnest(%(o_dispatch)s::bigint[], %(o_strategy)s::int[], %(o_revision)s::int[], %(o_status)s::int2[],
                    %(o_action)s::int2[], %(o_strength)s::float8[], %(o_edge)s::float8[], %(o_detail)s::text[],
                    %(o_class)s::text[], %(o_error)s::text[], %(o_attempt)s::int2[], %(o_queued)s::float4[],
                    %(o_took)s::float4[])
             AS o(dispatch_id, strategy_id, revision, status, action, strength, edge, detail, error_class, error,
                  attempt, queued_ms, processing_ms)
        WHERE o.dispatch_id IN (SELECT id FROM asked)
        ON CONFLICT (dispatch_id, strategy_id) DO NOTHING
        RETURNING dispatch_id, strategy_id
    ), tried AS (
        INSERT INTO attempts (dispatch_id, strategy_id, attempt, status, error_class, error, processing_ms, worker)
        SELECT a.dispatch_id, a.strategy_id, a.attempt, a.status, a.error_class, a.error, a.took, %(worker)s
        FROM unnest(%(a_dispatch)s::bigint[], %(a_strategy)s::int[], %(a_attempt)s::int2[], %(a_status)s::text[],
                    %(a_class)s::text[], %(a_error)s::text[], %(a_took)s::float4[])
             AS a(dispatch_id, strategy_id, attempt, status, error_class, error, took)
        WHERE a.dispatch_id IN (SELECT id FROM asked)
        ON CONFLICT (dispatch_id, strategy_id, attempt) DO NOTHING
        RETURNING dispatch_id, strategy_id
    ), news AS (
        SELECT dispatch_id, count(*) AS landed FROM fresh GROUP BY dispatch_id
    ), counted AS (
        UPDATE dispatches d SET
            landed = d.landed + news.landed,
            state = CASE WHEN d.landed + news.landed >= d.expected THEN 'complete' ELSE d.state END,
            completed_at = CASE WHEN d.landed + news.landed >= d.expected THEN clock_timestamp() ELSE d.completed_at END
        FROM news WHERE d.id = news.dispatch_id
        RETURNING d.id, news.landed, d.landed >= d.expected AS is_complete, d.strategy_ids, d.weights
    )
    SELECT asked.id, counted.landed, counted.is_complete,
           CASE WHEN counted.is_complete THEN counted.strategy_ids::text END,
           CASE WHEN counted.is_complete THEN counted.weights::text END,
           counted.is_complete AND EXISTS (
               SELECT FROM breakers b
               WHERE b.strategy_id = ANY(counted.strategy_ids) AND (b.failures > 0 OR b.state <> 'closed')),
           CASE WHEN %(wants_news)s THEN ARRAY(
               SELECT strategy_id FROM fresh WHERE dispatch_id = asked.id
               UNION SELECT strategy_id FROM tried WHERE dispatch_id = asked.id) END
    FROM (SELECT DISTINCT id FROM asked) AS asked LEFT JOIN counted ON counted.id = asked.id
"""

_HEARD = """
    SELECT dispatch_id, strategy_id, status, action, strength FROM outcomes WHERE dispatch_id = ANY(%(ids)s::bigint[])
"""

_DECIDE = """
    INSERT INTO decisions (dispatch_id, action, score, weight_heard, missing, closed_by, latency_ms)
    SELECT d.id, made.action, made.score, made.weight_heard, made.missing::int[], made.closed_by,
           extract(epoch FROM clock_timestamp() - d.created_at) * 1000
    FROM unnest(%(ids)s::bigint[], %(actions)s::int2[], %(scores)s::float8[], %(heard)s::float8[], %(missing)s::text[],
                %(closed_by)s::text[])
         AS made(dispatch_id, action, score, weight_heard, missing, closed_by)
    JOIN dispatches d ON d.id = made.dispatch_id
    ON CONFLICT (dispatch_id) DO NOTHING
"""

_ASKED = "SELECT id, strategy_ids FROM dispatches WHERE id = ANY(%(ids)s::bigint[])"


@dataclass(frozen=True, slots=True)
class _Complete:
    """A dispatch whose last outcome landed just now."""

    dispatch_id: int
    weights: Mapping[int, float]
    is_ours: bool
    """Whether all its outcomes are those of this landing."""
    is_uneasy: bool
    """Whether the breaker of one of its strategies is not at rest."""


def land(
    driver: DriverConnection[Any],
    dispatch_id: int,
    worker: str,
    outcomes: Sequence[Outcome],
    attempts: Sequence[Attempt],
    rules: DecisionRules,
    *,
    crashed: Sequence[int] = (),
) -> Decision | None:
    """Record what happened to one dispatch; see `land_all`."""
    return land_all(driver, [Landing(dispatch_id, outcomes, attempts, crashed)], worker, rules).get(dispatch_id)


def land_all(
    driver: DriverConnection[Any],
    landings: Sequence[Landing],
    worker: str,
    rules: DecisionRules,
    moving: Moving | None = None,
) -> dict[int, Decision]:
    """Record chunks: outcomes, failed attempts, each dispatch's count, and its decision if it is complete.

    One transaction, two round trips; a third when a dispatch's outcomes came in several messages. Small parts of
    dispatches take one, and those that turn out to be the last ones two more. Idempotent: what is known already changes
    nothing. The decision and the breakers change in the transaction of the last outcome; the
    breaker of a strategy that killed its slot changes at once.

    Args:
        driver: psycopg connection in autocommit mode, without an open transaction.
        landings: what to record.
        worker: who executed it.
        rules: how a decision is made, and when a breaker opens.
        moving: positions that follow from these outcomes, written in the same transaction; not if one of the outcomes
            is recorded already, perhaps as another.

    Returns:
        The decisions of the dispatches that this completed, by dispatch.

    Raises:
        UnknownDispatchError: the ledger does not hold a dispatch; nothing was recorded, of the others neither.
        MessageError: a dispatch does not ask one of the strategies; nothing was recorded, of the others neither.
        psycopg.Error: the connection broke; land everything again on a new one.
    """
    if moving is None:
        landings = _land_small(driver, landings, worker)
        if not landings:
            return {}
    with _transaction(driver):
        rows = driver.execute(_LAND, land_values(landings, worker), prepare=True, binary=True).fetchall()
        _require_known(driver, landings, {row[0] for row in rows})
        crashed = _record_crashes(driver, landings, {row[0]: row[6] for row in rows}, rules)
        complete = [_complete(row) for row in rows if row[2]]
        decisions = _conclude(driver, complete, landings, rules, crashed) if complete else {}
        if moving is not None and sum(row[1] or 0 for row in rows) == sum(len(each.outcomes) for each in landings):
            moving.write(driver)
        return decisions


@contextmanager
def _transaction(driver: DriverConnection[Any]) -> Iterator[None]:
    """Surround what belongs together. The driver's own way waits for BEGIN before it sends anything else."""
    if not driver.autocommit or driver.info.transaction_status is not TransactionStatus.IDLE:
        with driver.pipeline(), driver.transaction():
            yield
        return
    try:
        with driver.pipeline():
            driver.execute("BEGIN")
            yield
            driver.execute("COMMIT")
    except BaseException:
        driver.rollback()
        raise


def _land_small(driver: DriverConnection[Any], landings: Sequence[Landing], worker: str) -> Sequence[Landing]:
    """Record, in one round trip, what does not complete its dispatch; return the rest."""
    if not all(landing.is_small for landing in landings):
        return landings
    values = land_values(landings, worker) | {"may_complete": False}
    recorded = {row[0] for row in driver.execute(_LAND, values, prepare=True, binary=True).fetchall()}
    return [landing for landing in landings if landing.dispatch_id not in recorded]


def land_ends(
    connection: Connection,
    dispatch_id: int,
    ends: Sequence[JobKey],
    status: OutcomeStatus,
    *,
    reason: str,
    text: str,
    by: str,
    rules: DecisionRules,
) -> Decision | None:
    """Record jobs that end without being executed, in the caller's transaction. Idempotent.

    Args:
        connection: of SQLAlchemy, with an open transaction.
        dispatch_id: whose jobs they are.
        ends: the jobs.
        status: how they end.
        reason: one word, kept as `error_class`.
        text: for people, kept as `error`.
        by: who ends them, kept as `worker`.
        rules: as for `land`.

    Returns:
        The decision, if this completed the dispatch.

    Raises:
        UnknownDispatchError: the ledger does not hold the dispatch.
    """
    outcomes = [Outcome(key.strategy_id, key.revision, status, error_class=reason, error=text) for key in ends]
    return land(driver_of(connection), dispatch_id, by, outcomes, (), rules)


def _require_known(driver: DriverConnection[Any], landings: Sequence[Landing], known: set[int]) -> None:
    """Find out why Postgres did not lock what is to land: no such dispatch, or strategies that it does not ask."""
    refused = {landing.dispatch_id for landing in landings} - known
    if not refused:
        return
    asked = dict(driver.execute(_ASKED, {"ids": sorted(refused)}).fetchall())
    for number, found in strategies_of(landings).items():
        if number in refused and number not in asked:
            raise UnknownDispatchError(f"expected dispatch {number} in the ledger, found none")
        if number in refused:
            unasked = sorted(set(found) - set(asked[number]))
            raise MessageError(f"expected strategies that dispatch {number} asks, found also {unasked}")


def _record_crashes(
    driver: DriverConnection[Any],
    landings: Sequence[Landing],
    news: Mapping[int, Sequence[int] | None],
    rules: DecisionRules,
) -> set[int]:
    """Open the breakers of strategies that killed their slot; not for what was known already."""
    crashed = {number for each in landings for number in set(each.crashed) & set(news[each.dispatch_id] or ())}
    for strategy_id in sorted(crashed):
        breakers.record_crash(driver, strategy_id, rules.breaker)
    return crashed


def _complete(row: Sequence[Any]) -> _Complete:
    weights = _read_weights(row[3], row[4])
    return _Complete(row[0], weights, row[1] == len(weights), row[5])


@lru_cache(maxsize=1024)
def _read_weights(strategy_ids: str, weights: str) -> Mapping[int, float]:
    """Read two array literals; the same ones come with every candle of a series."""
    return dict(zip(map(int, strategy_ids[1:-1].split(",")), map(float, weights[1:-1].split(",")), strict=True))


def _conclude(
    driver: DriverConnection[Any],
    complete: Sequence[_Complete],
    landings: Sequence[Landing],
    rules: DecisionRules,
    crashed: set[int],
) -> dict[int, Decision]:
    """Send what follows for dispatches that are complete: breakers, and the decisions."""
    heard = _gather(driver, complete, landings)
    _judge(driver, complete, heard, rules, crashed)
    decisions = {
        each.dispatch_id: decide(
            each.weights,
            heard[each.dispatch_id],
            quorum=rules.quorum,
            threshold=rules.threshold,
            closed_by=ClosedBy.COMPLETE,
        )
        for each in complete
    }
    driver.execute(_DECIDE, decision_values(decisions), prepare=True)
    return decisions


def _gather(
    driver: DriverConnection[Any], complete: Sequence[_Complete], landings: Sequence[Landing]
) -> dict[int, list[Heard]]:
    """Return every outcome of the complete dispatches, from memory or else from the ledger."""
    heard: dict[int, list[Heard]] = {each.dispatch_id: [] for each in complete}
    ours = {each.dispatch_id for each in complete if each.is_ours}
    for landing in landings:
        if landing.dispatch_id in ours:
            heard[landing.dispatch_id] += map(_heard, landing.outcomes)
    if len(ours) < len(complete):
        ids = build_array(INT8, sorted(heard.keys() - ours))
        for row in driver.execute(_HEARD, {"ids": ids}, prepare=True, binary=True).fetchall():
            heard[row[0]].append(Heard(row[1], OutcomeStatus(row[2]), row[3], row[4]))
    return heard


def _heard(outcome: Outcome) -> Heard:
    signal = outcome.signal
    if signal is None:
        return Heard(outcome.strategy_id, outcome.status, None, None)
    return Heard(outcome.strategy_id, outcome.status, signal.action, signal.strength)


def _judge(
    driver: DriverConnection[Any],
    complete: Sequence[_Complete],
    heard: Mapping[int, Sequence[Heard]],
    rules: DecisionRules,
    crashed: set[int],
) -> None:
    """Change the breakers of the strategies that answered, one dispatch after the other."""
    if not any(each.is_uneasy or _has_failed(heard[each.dispatch_id]) for each in complete):
        return
    strategies = {number for each in complete for number in each.weights}
    known = breakers.lock_uneasy(driver, strategies)
    changed: dict[int, Breaker] = {}
    for each in complete:
        ended = sorted((item.strategy_id, item.status) for item in heard[each.dispatch_id])
        for breaker in judge(known, ended, datetime.now(UTC), rules.breaker):
            known[breaker.strategy_id] = changed[breaker.strategy_id] = breaker
    breakers.write(driver, [changed[number] for number in sorted(changed.keys() - crashed)])


def _has_failed(heard: Sequence[Heard]) -> bool:
    return any(item.status is not OutcomeStatus.SUCCEEDED for item in heard)
