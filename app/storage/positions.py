"""Positions in Postgres: what was last written, what the ledger says since, and writing what it makes of them.

A row is only ever replaced by the one that follows from it (its version decides), so that every candle is applied once,
whoever does it and however often.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from psycopg import Connection as DriverConnection
from psycopg import Cursor

from app.domain.candles import Timeframe
from app.domain.orders import PositionKey
from app.domain.positions import Bar, Event, Intent, Order, State, View

#: Candles before the first job that is seen among which a new position looks for its beginning: jobs may arrive in any
#: order, but hardly from further apart.
LOOK_BACK = 1000

#: Candles of a series that are read at once. A slot seldom missed more, and what cannot be applied is read in vain.
MOST_CANDLES = 64

_STATE = (
    *("side", "quantity", "size_percent", "entry_price", "entry_fee", "stop", "target", "best", "barred"),
    *("order_side", "order_quantity", "order_percent", "order_stop", "order_target", "profit", "fees", "trades"),
)

_LOAD = f"""
    SELECT w.place, coalesce(extract(epoch FROM p.applied_open_time) * 1000, extract(epoch FROM begun.at) * 1000 - 1,
                             w.until_ms - 1)::bigint,
           coalesce(p.version, 0), coalesce(p.strategy_revision, 0),
           coalesce(extract(epoch FROM p.opened_at) * 1000, 0)::bigint, p.version IS NOT NULL,
           {", ".join(f"p.{name}" for name in _STATE)}
    FROM unnest(%(strategies)s::int[], %(symbols)s::text[], %(timeframes)s::text[], %(until)s::bigint[],
                %(back)s::bigint[]) WITH ORDINALITY AS w(strategy_id, symbol, timeframe, until_ms, back_ms, place)
    JOIN strategies s ON s.id = w.strategy_id
    LEFT JOIN positions p ON p.strategy_id = w.strategy_id AND p.symbol = w.symbol AND p.timeframe = w.timeframe
    LEFT JOIN LATERAL (
        SELECT d.open_time AS at FROM dispatches d
        WHERE p.version IS NULL AND d.symbol = w.symbol AND d.timeframe = w.timeframe
          AND d.open_time >= to_timestamp(w.until_ms / 1000) - w.back_ms * interval '1 millisecond'
          AND d.created_at >= s.trading_since AND d.strategy_ids @> ARRAY[w.strategy_id]
        ORDER BY d.open_time LIMIT 1
    ) AS begun ON true
    ORDER BY w.place
"""  # noqa: S608 - column names of our own

#: Series, moments and strategies, and since when all of these trade; materialized, because the arrays would be read
#: anew for every row.
_WANTED = """
    WITH wanted AS MATERIALIZED (
        SELECT symbol, timeframe, after_ms, strategies::int[] AS strategies, place,
               (SELECT max(trading_since) FROM strategies WHERE id = ANY(w.strategies::int[])) AS trading_since
        FROM unnest(%(symbols)s::text[], %(timeframes)s::text[], %(after)s::bigint[], %(strategies)s::text[])
             WITH ORDINALITY AS w(symbol, timeframe, after_ms, strategies, place)
    )
"""

#: Candles after a moment, the first dispatch of each, and what landed of it. A dispatch of which nothing wanted landed
#: ends the reading: what comes after it cannot be applied yet.
_HISTORY = f"""
    {_WANTED}
    SELECT w.place, (extract(epoch FROM c.open_time) * 1000)::bigint, c.open, c.high, c.low, c.close,
           coalesce(c.correlation_id, ''), coalesce(c.strategy_ids::text, '{{}}'), o.strategy_id,
           o.status = 'succeeded' AND (c.created_at >= w.trading_since OR c.created_at >= (
               SELECT trading_since FROM strategies WHERE id = o.strategy_id)),
           o.strategy_revision, o.action, o.strength,
           (o.detail ->> 'stop')::float8, (o.detail ->> 'target')::float8
    FROM wanted AS w
    CROSS JOIN LATERAL (
        SELECT b.*, d.*, bool_or(
                   d.landed < d.expected AND d.strategy_ids && w.strategies
                   AND NOT EXISTS (SELECT FROM outcomes heard
                                   WHERE heard.dispatch_id = d.id AND heard.strategy_id = ANY(w.strategies))
               ) OVER (ORDER BY b.open_time) AS is_beyond
        FROM (SELECT open_time, open, high, low, close FROM candles
              WHERE symbol = w.symbol AND timeframe = w.timeframe
                AND open_time > to_timestamp(0) + w.after_ms * interval '1 millisecond'
              ORDER BY open_time LIMIT %(most)s) AS b
        LEFT JOIN LATERAL (
            SELECT id, correlation_id, strategy_ids, landed, expected, created_at FROM dispatches
            WHERE symbol = w.symbol AND timeframe = w.timeframe AND open_time = b.open_time
            ORDER BY revision LIMIT 1
        ) AS d ON true
    ) AS c
    LEFT JOIN LATERAL (
        SELECT * FROM outcomes WHERE dispatch_id = c.id AND strategy_id = ANY(w.strategies)
    ) AS o ON true
    WHERE c.is_beyond IS NOT TRUE
    ORDER BY w.place, c.open_time
"""  # noqa: S608 - text of our own

_NEXT = f"""
    {_WANTED}
    SELECT w.place
    FROM wanted AS w
    CROSS JOIN LATERAL (
        SELECT id, landed FROM dispatches
        WHERE symbol = w.symbol AND timeframe = w.timeframe
          AND open_time > to_timestamp(0) + w.after_ms * interval '1 millisecond'
        ORDER BY open_time, revision LIMIT 1
    ) AS next
    WHERE next.landed > 0 AND EXISTS (
        SELECT FROM outcomes WHERE dispatch_id = next.id AND strategy_id = ANY(w.strategies))
"""  # noqa: S608 - text of our own

_TYPES = {"side": "int2", "barred": "int2", "order_side": "int2", "trades": "int"}
_COLUMNS = (
    *("strategy_id", "symbol", "timeframe", "strategy_revision"),
    *_STATE,
    *("opened_at", "applied_open_time", "version", "correlation_id"),
)
_EPOCH = "to_timestamp(0) + {} * interval '1 millisecond'"

#: A row that somebody else has written meanwhile is left alone, and nothing of what was to happen to it is recorded.
_MOVE = f"""
    WITH moved AS (
        SELECT * FROM json_to_recordset(%(moves)s::json) AS m(
            strategy_id int, symbol text, timeframe text, strategy_revision int, opened_ms bigint, applied_ms bigint,
            version int, correlation_id text, {", ".join(f"{name} {_TYPES.get(name, 'float8')}" for name in _STATE)})
    ), saved AS (
        INSERT INTO positions AS known ({", ".join(_COLUMNS)})
        SELECT strategy_id, symbol, timeframe, strategy_revision, {", ".join(_STATE)},
               CASE WHEN opened_ms > 0 THEN {_EPOCH.format("opened_ms")} END, {_EPOCH.format("applied_ms")},
               version, correlation_id
        FROM moved ORDER BY strategy_id, symbol, timeframe
        ON CONFLICT (strategy_id, symbol, timeframe) DO UPDATE
          SET ({", ".join(_COLUMNS[3:])}, updated_at)
            = ROW({", ".join(f"excluded.{name}" for name in _COLUMNS[3:])}, clock_timestamp())
          WHERE known.version = excluded.version - 1
        RETURNING strategy_id, symbol, timeframe
    ), told AS (
        INSERT INTO position_events (strategy_id, symbol, timeframe, open_time, number, strategy_revision, kind, reason,
                                     side, price, quantity, fee, profit, stop, target, correlation_id)
        SELECT e.strategy_id, e.symbol, e.timeframe, {_EPOCH.format("e.opened_ms")}, e.number, e.revision, e.kind,
               e.reason, e.side, e.price, e.quantity, e.fee, e.profit, e.stop, e.target, e.correlation_id
        FROM json_to_recordset(%(events)s::json) AS e(
            strategy_id int, symbol text, timeframe text, opened_ms bigint, number int2, revision int, kind text,
            reason text, side int2, price float8, quantity float8, fee float8, profit float8, stop float8,
            target float8, correlation_id text)
        JOIN saved USING (strategy_id, symbol, timeframe)
        ORDER BY e.opened_ms, e.strategy_id, e.symbol, e.timeframe, e.number
        ON CONFLICT (strategy_id, symbol, timeframe, open_time, number) DO NOTHING
    )
    SELECT strategy_id, symbol, timeframe FROM saved
"""  # noqa: S608 - column names of our own


class Checkpoint(NamedTuple):
    """A position after some candle, and which row of Postgres it follows from."""

    state: State
    applied_ms: int
    """Open time of the last candle that was applied, epoch ms."""
    version: int = 0
    """Of the row; 0 when there is none yet."""
    revision: int = 0
    """Of the strategy, as last heard."""
    unsaved: int = 0
    """Candles applied since the row was written."""


class Past(NamedTuple):
    """A candle of the ledger, and what one strategy said at it."""

    bar: Bar
    correlation_id: str
    """Of its dispatch; empty when it has none."""
    is_known: bool
    """False: the strategy's outcome is still to come."""
    view: View | None
    revision: int
    """Of the strategy then; 0 when it said nothing."""


class Told(NamedTuple):
    """Something that happened to a position, with what it belongs to."""

    what: Event | Intent
    revision: int
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Move:
    """A position to be written, with what happened to it since its row was."""

    key: PositionKey
    checkpoint: Checkpoint
    """What it is now; its version is that of the row it follows from."""
    correlation_id: str
    events: Sequence[Told]
    intents: Sequence[Told]


def load_checkpoints(
    driver: DriverConnection[Any], until_ms: Mapping[PositionKey, int]
) -> dict[PositionKey, Checkpoint]:
    """Load what was last written of positions.

    One that has no row begins flat, before the first candle whose dispatch asked its strategy while that traded.

    Args:
        driver: of psycopg.
        until_ms: by position, open time of a candle that was dispatched.
    """
    keys = list(until_ms)
    values = {
        "strategies": [key.strategy_id for key in keys],
        "symbols": [key.symbol for key in keys],
        "timeframes": [key.timeframe for key in keys],
        "until": [until_ms[key] for key in keys],
        "back": [LOOK_BACK * _duration_ms(key.timeframe) for key in keys],
    }
    rows = driver.execute(_LOAD, values, prepare=True, binary=True).fetchall()
    return {keys[row[0] - 1]: _checkpoint(row) for row in rows}


def load_history(
    driver: DriverConnection[Any], after_ms: Mapping[PositionKey, int], most: int = MOST_CANDLES
) -> dict[PositionKey, list[Past]]:
    """Load the candles after a moment, oldest first, and what each strategy said at them.

    Args:
        driver: of psycopg.
        after_ms: by position, open time of the last candle that is not wanted.
        most: candles of each.
    """
    groups: dict[tuple[str, str, int], list[int]] = {}
    for key, after in after_ms.items():
        groups.setdefault((key.symbol, key.timeframe, after), []).append(key.strategy_id)
    places = list(groups)
    rows = driver.execute(_HISTORY, {**_places(groups), "most": most}, prepare=True, binary=True).fetchall()
    found: dict[PositionKey, list[Past]] = {}
    for place, of_place in groupby(rows, key=itemgetter(0)):
        symbol, timeframe, _ = places[place - 1]
        pasts = _read_pasts(of_place, groups[places[place - 1]])
        found |= {PositionKey(strategy_id, symbol, timeframe): each for strategy_id, each in pasts.items()}
    return {key: found.get(key, []) for key in after_ms}


def find_followed(
    driver: DriverConnection[Any], groups: Mapping[tuple[str, str, int], Sequence[int]]
) -> set[tuple[str, str]]:
    """Return the series whose next candle after a moment has an outcome of one of some strategies.

    Args:
        driver: of psycopg.
        groups: strategies by symbol, timeframe and open time in epoch ms.
    """
    places = list(groups)
    rows = driver.execute(_NEXT, _places(groups), prepare=True, binary=True).fetchall()
    return {places[row[0] - 1][:2] for row in rows}


def send_moves(driver: DriverConnection[Any], moves: Sequence[Move]) -> Cursor[Any]:
    """Have positions and their events written, in the caller's transaction; `read_saved` tells what was.

    Rows are locked in the order of their keys. In a pipeline nothing is waited for.
    """
    values = {
        "moves": json.dumps([_row(move) for move in moves]),
        "events": json.dumps([_event_row(move.key, told) for move in moves for told in move.events]),
    }
    return driver.execute(_MOVE, values, prepare=True)


def read_saved(cursor: Cursor[Any]) -> set[PositionKey]:
    """Return the positions whose row was still the one that the move follows from; of the others nothing is written."""
    return {PositionKey(*row) for row in cursor.fetchall()}


def _places(groups: Mapping[tuple[str, str, int], Sequence[int]]) -> dict[str, Any]:
    return {
        "symbols": [symbol for symbol, _, _ in groups],
        "timeframes": [timeframe for _, timeframe, _ in groups],
        "after": [after for _, _, after in groups],
        "strategies": ["{" + ",".join(map(str, strategies)) + "}" for strategies in groups.values()],
    }


def _checkpoint(row: Sequence[Any]) -> Checkpoint:
    _, applied_ms, version, revision, opened_ms, is_known, *state = row
    if not is_known:
        return Checkpoint(State(), applied_ms)
    side, quantity, size_percent, entry_price, entry_fee, stop, target, best, barred, *rest = state
    order_side, order_quantity, order_percent, order_stop, order_target, *totals = rest
    order = None if order_side is None else Order(order_side, order_quantity, order_percent, order_stop, order_target)
    held = (side, quantity, size_percent, entry_price, entry_fee, stop, target, best, opened_ms, barred)
    return Checkpoint(State(*held, order, *totals), applied_ms, version, revision)


def _read_pasts(rows: Iterable[Sequence[Any]], strategies: Sequence[int]) -> dict[int, list[Past]]:
    """Read the candles of one series: a row for each outcome, or one without any."""
    pasts: dict[int, list[Past]] = {strategy_id: [] for strategy_id in strategies}
    for _, of_candle in groupby(rows, key=itemgetter(1)):
        landed = list(of_candle)
        _, opened_ms, opened, high, low, close, correlation_id, asked, *_ = landed[0]
        bar, expected = Bar(opened_ms, opened, high, low, close), _read_ids(asked)
        heard = {row[8]: _view_and_revision(row) for row in landed}
        for strategy_id, own in pasts.items():
            is_known = strategy_id in heard or strategy_id not in expected
            own.append(Past(bar, correlation_id, is_known, *heard.get(strategy_id, (None, 0))))
    return pasts


def _view_and_revision(row: Sequence[Any]) -> tuple[View | None, int]:
    *_, counts, revision, action, strength, stop, target = row
    return (View(action, strength, stop, target) if counts else None), revision or 0


@lru_cache(maxsize=1024)
def _read_ids(literal: str) -> frozenset[int]:
    """Read an array literal; the same one comes with every candle of a series."""
    return frozenset(map(int, filter(None, literal[1:-1].split(","))))


def _row(move: Move) -> dict[str, Any]:
    state, checkpoint = move.checkpoint.state, move.checkpoint
    order = state.order
    row = {
        **move.key._asdict(),
        **state._asdict(),
        "strategy_revision": checkpoint.revision,
        "applied_ms": checkpoint.applied_ms,
        "version": checkpoint.version + 1,
        "correlation_id": move.correlation_id,
    }
    del row["order"]
    names = ("order_side", "order_quantity", "order_percent", "order_stop", "order_target")
    return row if order is None else {**row, **dict(zip(names, order, strict=True))}


def _event_row(key: PositionKey, told: Told) -> dict[str, Any]:
    return {
        **key._asdict(),
        **told.what._asdict(),
        "revision": told.revision,
        "correlation_id": told.correlation_id,
    }


def _duration_ms(timeframe: str) -> int:
    return Timeframe(timeframe).duration // timedelta(milliseconds=1)
