"""The ledger: dispatches, outcomes, attempts and decisions. Written once each, whatever is delivered twice.

Two writers use it: the producer opens dispatches, a worker slot lands a chunk. Both of their hot paths
are here as single statements, because their round trips are what the system's speed is made of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection as DriverConnection
from psycopg import Cursor
from sqlalchemy import Connection, text

from app.domain.breakers import judge
from app.domain.decisions import ClosedBy, Decision, DecisionRules, Heard, decide
from app.domain.jobs import JobKey, Outcome, OutcomeStatus
from app.errors import MessageError, UnknownDispatchError
from app.storage import breakers
from app.storage.candles import RecordedCandle
from app.storage.engine import driver_of

_OPEN_DISPATCHES = text("""
    INSERT INTO dispatches (symbol, timeframe, open_time, revision, strategy_ids, strategy_revisions, weights,
                            expected, deadline, expires_at, correlation_id)
    SELECT symbol, timeframe, open_time, revision, CAST(ids AS int[]), CAST(revisions AS int[]),
           CAST(weights AS float8[]), expected, clock_timestamp() + :patience, clock_timestamp() + :lifetime,
           correlation_id
    FROM unnest(CAST(:symbols AS text[]), CAST(:timeframes AS text[]), CAST(:open_times AS timestamptz[]),
                CAST(:candle_revisions AS int[]), CAST(:ids AS text[]), CAST(:revisions AS text[]),
                CAST(:weights AS text[]), CAST(:expected AS int[]), CAST(:correlation_ids AS text[]))
         WITH ORDINALITY AS fresh(symbol, timeframe, open_time, revision, ids, revisions, weights, expected,
                                  correlation_id, place)
    ORDER BY place
    ON CONFLICT (symbol, timeframe, open_time, revision) DO NOTHING
    RETURNING id, correlation_id, created_at, deadline, expires_at
""")

_MARK_PUBLISHED = text("""
    UPDATE dispatches SET published_at = clock_timestamp(), sends = sends + 1 WHERE id = ANY(:ids)
""")

#: One round trip: the outcomes, the failed attempts and the dispatch's count. What is known already changes
#: nothing, so a chunk may be delivered any number of times. The arrays of the dispatch travel only when the
#: last outcome landed, which is when the decision needs them. A chunk with a strategy that its dispatch does not ask
#: records nothing: one comparison of two arrays, a microsecond for 50 strategies and 26 for 500.
_LAND = """
    WITH known AS (
        SELECT id FROM dispatches
        WHERE id = %(dispatch_id)s AND strategy_ids @> (%(o_strategy)s::int[] || %(a_strategy)s::int[])
        FOR UPDATE
    ), fresh AS (
        INSERT INTO outcomes (dispatch_id, strategy_id, strategy_revision, status, action, strength, edge, detail,
                              error_class, error, attempt, queued_ms, processing_ms, worker)
        SELECT known.id, o.strategy_id, o.revision, o.status, o.action, o.strength, o.edge, o.detail::jsonb,
               o.error_class, o.error, o.attempt, o.queued_ms, o.processing_ms, %(worker)s
        FROM known, unnest(%(o_strategy)s::int[], %(o_revision)s::int[], %(o_status)s::text[], %(o_action)s::int2[],
                           %(o_strength)s::float8[], %(o_edge)s::float8[], %(o_detail)s::text[],
                           %(o_class)s::text[], %(o_error)s::text[], %(o_attempt)s::int2[],
                           %(o_queued)s::float4[], %(o_took)s::float4[])
             AS o(strategy_id, revision, status, action, strength, edge, detail, error_class, error, attempt,
                  queued_ms, processing_ms)
        ON CONFLICT (dispatch_id, strategy_id) DO NOTHING
        RETURNING strategy_id
    ), tried AS (
        INSERT INTO attempts (dispatch_id, strategy_id, attempt, status, error_class, error, processing_ms, worker)
        SELECT known.id, a.strategy_id, a.attempt, a.status, a.error_class, a.error, a.took, %(worker)s
        FROM known, unnest(%(a_strategy)s::int[], %(a_attempt)s::int2[], %(a_status)s::text[], %(a_class)s::text[],
                           %(a_error)s::text[], %(a_took)s::float4[])
             AS a(strategy_id, attempt, status, error_class, error, took)
        ON CONFLICT (dispatch_id, strategy_id, attempt) DO NOTHING
        RETURNING strategy_id
    ), counted AS (
        UPDATE dispatches SET
            landed = landed + (SELECT count(*) FROM fresh),
            state = CASE WHEN landed + (SELECT count(*) FROM fresh) >= expected THEN 'complete' ELSE state END,
            completed_at = CASE WHEN landed + (SELECT count(*) FROM fresh) >= expected
                                THEN clock_timestamp() ELSE completed_at END
        WHERE id = %(dispatch_id)s AND EXISTS (SELECT FROM fresh)
        RETURNING id, landed >= expected AS is_complete, strategy_ids, weights
    )
    SELECT counted.is_complete,
           CASE WHEN counted.is_complete THEN counted.strategy_ids END,
           CASE WHEN counted.is_complete THEN counted.weights END,
           CASE WHEN %(wants_news)s THEN ARRAY(SELECT strategy_id FROM fresh UNION SELECT strategy_id FROM tried) END
    FROM known LEFT JOIN counted ON counted.id = known.id
"""

_HEARD = """
    SELECT o.strategy_id, o.status, o.action, o.strength
    FROM outcomes o
    JOIN dispatches d ON d.id = o.dispatch_id
    WHERE o.dispatch_id = %(dispatch_id)s AND d.landed >= d.expected
    ORDER BY o.strategy_id
"""

_DECIDE = """
    INSERT INTO decisions (dispatch_id, action, score, weight_heard, missing, closed_by, latency_ms)
    SELECT id, %(action)s, %(score)s, %(weight_heard)s, %(missing)s, %(closed_by)s,
           extract(epoch FROM clock_timestamp() - created_at) * 1000
    FROM dispatches WHERE id = %(dispatch_id)s
    ON CONFLICT (dispatch_id) DO NOTHING
"""


_ASKED = """
    SELECT strategy_ids FROM dispatches WHERE id = %(dispatch_id)s
"""

#: One row with NULL when nothing is missing, so that a dispatch that does not exist is told from one that is complete.
_MISSING = text("""
    SELECT wanted.id FROM dispatches d, unnest(d.strategy_ids) AS wanted(id)
    WHERE d.id = :dispatch_id
      AND NOT EXISTS (SELECT FROM outcomes o WHERE o.dispatch_id = d.id AND o.strategy_id = wanted.id)
""")

_ENDED = text("SELECT strategy_id FROM outcomes WHERE dispatch_id = :dispatch_id")


@dataclass(frozen=True, slots=True)
class Expected:
    """The strategies that one dispatch asks, as the database wants them; shared by all candles of a series."""

    strategy_ids: str
    """Postgres array literal, ascending."""
    revisions: str
    weights: str
    count: int

    @classmethod
    def build(cls, entries: Sequence[tuple[int, int, float]]) -> Expected:
        """Build it from (strategy id, revision, weight), ascending by id."""
        ids, revisions, weights = zip(*entries, strict=True)
        return cls(_literal(ids), _literal(revisions), _literal(weights), len(entries))


@dataclass(frozen=True, slots=True)
class OpenedDispatch:
    """A dispatch row that was just written."""

    id: int
    correlation_id: str
    created_at: datetime
    deadline: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a job that did not succeed and is not its end."""

    strategy_id: int
    attempt: int
    status: OutcomeStatus
    error_class: str
    error: str
    processing_ms: float


def open_dispatches(
    connection: Connection,
    asked: Sequence[tuple[RecordedCandle, Expected, str]],
    patience: timedelta,
    lifetime: timedelta,
) -> dict[str, OpenedDispatch]:
    """Write one dispatch per candle, in order, in the caller's transaction (that of the candles).

    Args:
        connection: with an open transaction.
        asked: for each candle who is expected to answer, and a correlation id of its own.
        patience: time until the decision is due.
        lifetime: time until a job that was not executed is out of date.

    Returns:
        The dispatches written, by correlation id; one that existed already is absent.
    """
    if not asked:
        return {}
    candles = [recorded.candle for recorded, _, _ in asked]
    rows = connection.execute(
        _OPEN_DISPATCHES,
        {
            "patience": patience,
            "lifetime": lifetime,
            "symbols": [candle.symbol for candle in candles],
            "timeframes": [candle.timeframe.value for candle in candles],
            "open_times": [candle.open_time for candle in candles],
            "candle_revisions": [candle.revision for candle in candles],
            "ids": [expected.strategy_ids for _, expected, _ in asked],
            "revisions": [expected.revisions for _, expected, _ in asked],
            "weights": [expected.weights for _, expected, _ in asked],
            "expected": [expected.count for _, expected, _ in asked],
            "correlation_ids": [correlation_id for _, _, correlation_id in asked],
        },
    )
    return {row.correlation_id: OpenedDispatch(*row) for row in rows}


def mark_published(connection: Connection, dispatch_ids: Sequence[int]) -> None:
    """Note that the chunks of these dispatches are on their queues, once more."""
    connection.execute(_MARK_PUBLISHED, {"ids": list(dispatch_ids)})


@dataclass(frozen=True, slots=True)
class Landing:
    """What is to be recorded of one dispatch."""

    dispatch_id: int
    outcomes: Sequence[Outcome]
    """Ends of jobs."""
    attempts: Sequence[Attempt] = ()
    """Attempts that will be followed by another."""
    crashed: Sequence[int] = ()
    """Strategies that killed their slot."""


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
    return land_all(driver, [Landing(dispatch_id, outcomes, attempts, crashed)], worker, rules)[0]


def land_all(
    driver: DriverConnection[Any], landings: Sequence[Landing], worker: str, rules: DecisionRules
) -> list[Decision | None]:
    """Record chunks: outcomes, failed attempts, each dispatch's count, and its decision if it is complete.

    One transaction, two round trips. Idempotent: what is known already changes nothing. The decision and the
    breakers change in the transaction of the last outcome; the breaker of a strategy that killed its slot
    changes at once.

    Args:
        driver: psycopg connection in autocommit mode, without an open transaction.
        landings: what to record.
        worker: who executed it.
        rules: how a decision is made, and when a breaker opens.

    Returns:
        For each landing the decision, if it completed the dispatch.

    Raises:
        UnknownDispatchError: the ledger does not hold a dispatch; nothing was recorded, of the others neither.
        MessageError: a dispatch does not ask one of the strategies; nothing was recorded, of the others neither.
        psycopg.Error: the connection broke; land everything again on a new one.
    """
    decisions: list[Decision | None] = [None] * len(landings)
    # dispatches are locked in the order of their ids, so that two landings never wait for each other
    in_order = sorted(enumerate(landings), key=lambda numbered: numbered[1].dispatch_id)
    with driver.pipeline(), driver.transaction():
        asked = [(place, landing, _ask(driver, landing, worker)) for place, landing in in_order]
        for place, landing, answers in asked:
            decisions[place] = _conclude(driver, landing, answers, rules)
    return decisions


@dataclass(frozen=True, slots=True)
class _Answers:
    """What Postgres will say to one landing."""

    counted: Cursor[Any]
    heard: Cursor[Any]
    unrest: Cursor[Any]


def _ask(driver: DriverConnection[Any], landing: Landing, worker: str) -> _Answers:
    """Send everything up to the answer that says whether the dispatch is complete."""
    values = {"dispatch_id": landing.dispatch_id, "worker": worker, "wants_news": bool(landing.crashed)}
    values |= _outcome_arrays(landing.outcomes) | _attempt_arrays(landing.attempts)
    return _Answers(
        driver.execute(_LAND, values, prepare=True),
        driver.execute(_HEARD, {"dispatch_id": landing.dispatch_id}, prepare=True),
        breakers.read_unrest(driver, landing.dispatch_id),
    )


def _conclude(
    driver: DriverConnection[Any], landing: Landing, answers: _Answers, rules: DecisionRules
) -> Decision | None:
    """Send what follows from the answers: breakers, and the decision of a complete dispatch."""
    counted, heard = answers.counted.fetchone(), answers.heard.fetchall()
    if counted is None:
        raise _refusal(driver, landing)
    crashed = set(landing.crashed) & set(counted[3] or ())  # not for what was known already
    for strategy_id in sorted(crashed):
        breakers.record_crash(driver, strategy_id, rules.breaker)
    if not counted[0]:
        return None
    spoken = [Heard(row[0], OutcomeStatus(row[1]), row[2], row[3]) for row in heard]
    ended = [(item.strategy_id, item.status) for item in spoken]
    judged = judge(breakers.parse(answers.unrest), ended, datetime.now(UTC), rules.breaker)
    breakers.write(driver, [breaker for breaker in judged if breaker.strategy_id not in crashed])
    weights = dict(zip(counted[1], counted[2], strict=True))
    decision = decide(weights, spoken, quorum=rules.quorum, threshold=rules.threshold, closed_by=ClosedBy.COMPLETE)
    driver.execute(_DECIDE, _decision_values(landing.dispatch_id, decision), prepare=True)
    return decision


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
    outcomes = [
        Outcome(
            dispatch_id=dispatch_id,
            strategy_id=key.strategy_id,
            strategy_revision=key.revision,
            status=status,
            error_class=reason,
            error=text,
            queued_ms=0.0,
            processing_ms=0.0,
            worker=by,
        )
        for key in ends
    ]
    return land(driver_of(connection), dispatch_id, by, outcomes, (), rules)


def load_missing(connection: Connection, dispatch_id: int) -> frozenset[int]:
    """Load which strategies of a dispatch have no outcome yet; none for an unknown dispatch."""
    return frozenset(connection.execute(_MISSING, {"dispatch_id": dispatch_id}).scalars())


def load_ended(connection: Connection, dispatch_id: int) -> frozenset[int]:
    """Load which strategies of a dispatch have an outcome; none for an unknown dispatch."""
    return frozenset(connection.execute(_ENDED, {"dispatch_id": dispatch_id}).scalars())


def _refusal(driver: DriverConnection[Any], landing: Landing) -> MessageError:
    """Find out why Postgres did not know what to land: no such dispatch, or strategies that it does not ask."""
    row = driver.execute(_ASKED, {"dispatch_id": landing.dispatch_id}).fetchone()
    if row is None:
        return UnknownDispatchError(f"expected dispatch {landing.dispatch_id} in the ledger, found none")
    found = {outcome.strategy_id for outcome in landing.outcomes} | {tried.strategy_id for tried in landing.attempts}
    return MessageError(
        f"expected strategies that dispatch {landing.dispatch_id} asks, found also {sorted(found - set(row[0]))}"
    )


def _decision_values(dispatch_id: int, decision: Decision) -> dict[str, Any]:
    return {
        "dispatch_id": dispatch_id,
        "action": decision.action,
        "score": decision.score,
        "weight_heard": decision.weight_heard,
        "missing": list(decision.missing),
        "closed_by": decision.closed_by.value,
    }


def _outcome_arrays(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    signals = [outcome.signal for outcome in outcomes]
    return {
        "o_strategy": [o.strategy_id for o in outcomes],
        "o_revision": [o.strategy_revision for o in outcomes],
        "o_status": [o.status.value for o in outcomes],
        "o_action": [None if s is None else s.action for s in signals],
        "o_strength": [None if s is None else s.strength for s in signals],
        "o_edge": [None if s is None else s.edge for s in signals],
        "o_detail": [_detail(o) for o in outcomes],
        "o_class": [o.error_class for o in outcomes],
        "o_error": [o.error for o in outcomes],
        "o_attempt": [o.attempt for o in outcomes],
        "o_queued": [o.queued_ms for o in outcomes],
        "o_took": [o.processing_ms for o in outcomes],
    }


def _attempt_arrays(attempts: Sequence[Attempt]) -> dict[str, Any]:
    return {
        "a_strategy": [a.strategy_id for a in attempts],
        "a_attempt": [a.attempt for a in attempts],
        "a_status": [a.status.value for a in attempts],
        "a_class": [a.error_class for a in attempts],
        "a_error": [a.error for a in attempts],
        "a_took": [a.processing_ms for a in attempts],
    }


def _detail(outcome: Outcome) -> str | None:
    signal = outcome.signal
    if signal is None or (signal.stop is None and signal.target is None and not signal.extras):
        return None
    kept = {"stop": signal.stop, "target": signal.target, "extras": signal.extras or None}
    return json.dumps({name: value for name, value in kept.items() if value is not None})


def _literal(values: Sequence[float]) -> str:
    return "{" + ",".join(repr(value) for value in values) + "}"
