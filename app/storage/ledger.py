"""The ledger: dispatches, opened by the producer with the candle they belong to. What lands on them is in `landing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.storage.candles import RecordedCandle

_OPEN_DISPATCHES = text("""
    INSERT INTO dispatches (symbol, timeframe, open_time, revision, strategy_ids, strategy_revisions, weights,
                            expected, deadline, expires_at, correlation_id, plan_id)
    SELECT symbol, timeframe, open_time, revision, CAST(ids AS int[]), CAST(revisions AS int[]),
           CAST(weights AS float8[]), expected, clock_timestamp() + :patience, clock_timestamp() + :lifetime,
           correlation_id, plan_id
    FROM unnest(CAST(:symbols AS text[]), CAST(:timeframes AS text[]), CAST(:open_times AS timestamptz[]),
                CAST(:candle_revisions AS int[]), CAST(:ids AS text[]), CAST(:revisions AS text[]),
                CAST(:weights AS text[]), CAST(:expected AS int[]), CAST(:correlation_ids AS text[]),
                CAST(:plan_ids AS bigint[]))
         WITH ORDINALITY AS fresh(symbol, timeframe, open_time, revision, ids, revisions, weights, expected,
                                  correlation_id, plan_id, place)
    ORDER BY place
    ON CONFLICT (symbol, timeframe, open_time, revision) DO NOTHING
    RETURNING id, correlation_id, created_at, deadline, expires_at
""")

#: Locked in the order of their ids, as landings lock them: neither waits for the other for ever.
_MARK_PUBLISHED = text("""
    WITH locked AS (SELECT id FROM dispatches WHERE id = ANY(:ids) ORDER BY id FOR UPDATE)
    UPDATE dispatches d SET published_at = clock_timestamp(), sends = sends + 1 FROM locked WHERE d.id = locked.id
""")

#: One row with NULL when nothing is missing, so that a dispatch that does not exist is told from one that is complete.
_MISSING = text("""
    SELECT wanted.id FROM dispatches d, unnest(d.strategy_ids) AS wanted(id)
    WHERE d.id = :dispatch_id
      AND NOT EXISTS (SELECT FROM outcomes o WHERE o.dispatch_id = d.id AND o.strategy_id = wanted.id)
""")

_ENDED = text("SELECT dispatch_id, array_agg(strategy_id) FROM outcomes WHERE dispatch_id = ANY(:ids) GROUP BY 1")


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


class Asked(NamedTuple):
    """A dispatch to be opened."""

    recorded: RecordedCandle
    expected: Expected
    correlation_id: str
    plan_id: int | None = None
    """How its jobs travel, as `app.storage.plans` stored it."""


@dataclass(frozen=True, slots=True)
class OpenedDispatch:
    """A dispatch row that was just written."""

    id: int
    correlation_id: str
    created_at: datetime
    deadline: datetime
    expires_at: datetime


def open_dispatches(
    connection: Connection,
    asked: Sequence[Asked],
    patience: timedelta,
    lifetime: timedelta,
) -> dict[str, OpenedDispatch]:
    """Write one dispatch per candle, in order, in the caller's transaction (that of the candles).

    Args:
        connection: with an open transaction.
        asked: for each candle who is expected to answer, with a correlation id of its own.
        patience: time until the decision is due.
        lifetime: time until a job that was not executed is out of date.

    Returns:
        The dispatches written, by correlation id; one that existed already is absent.
    """
    if not asked:
        return {}
    candles = [each.recorded.candle for each in asked]
    rows = connection.execute(
        _OPEN_DISPATCHES,
        {
            "patience": patience,
            "lifetime": lifetime,
            "symbols": [candle.symbol for candle in candles],
            "timeframes": [candle.timeframe.value for candle in candles],
            "open_times": [candle.open_time for candle in candles],
            "candle_revisions": [candle.revision for candle in candles],
            "ids": [each.expected.strategy_ids for each in asked],
            "revisions": [each.expected.revisions for each in asked],
            "weights": [each.expected.weights for each in asked],
            "expected": [each.expected.count for each in asked],
            "correlation_ids": [each.correlation_id for each in asked],
            "plan_ids": [each.plan_id for each in asked],
        },
    )
    return {row.correlation_id: OpenedDispatch(*row) for row in rows}


def mark_published(connection: Connection, dispatch_ids: Sequence[int]) -> None:
    """Note that the chunks of these dispatches are on their queues, once more."""
    connection.execute(_MARK_PUBLISHED, {"ids": list(dispatch_ids)})


def load_missing(connection: Connection, dispatch_id: int) -> frozenset[int]:
    """Load which strategies of a dispatch have no outcome yet; none for an unknown dispatch."""
    return frozenset(connection.execute(_MISSING, {"dispatch_id": dispatch_id}).scalars())


def load_ended(connection: Connection, dispatch_ids: Sequence[int]) -> dict[int, frozenset[int]]:
    """Load which strategies of some dispatches have an outcome; a dispatch without any is absent."""
    rows = connection.execute(_ENDED, {"ids": list(dispatch_ids)})
    return {row[0]: frozenset(row[1]) for row in rows}


def _literal(values: Sequence[float]) -> str:
    return "{" + ",".join(repr(value) for value in values) + "}"
