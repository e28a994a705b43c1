"""What positions must be, worked out from the ledger one candle after the other, and what is recorded of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Engine, text

from app.domain.orders import PositionKey
from app.domain.positions import Event, Intent, State, step
from app.domain.strategies import Trading
from app.storage.engine import driver_of
from app.storage.positions import LOOK_BACK, load_history

_EVENTS = """
    SELECT CAST(extract(epoch FROM open_time) * 1000 AS bigint), number, kind, reason, side, price, quantity, fee,
           profit, stop, target
    FROM position_events WHERE (strategy_id, symbol, timeframe) = (:strategy_id, :symbol, :timeframe)
    ORDER BY open_time, number
"""
_INTENTS = """
    SELECT CAST(extract(epoch FROM open_time) * 1000 AS bigint), kind, side, size_percent, quantity, price, cause, stop,
           target
    FROM actions WHERE (strategy_id, symbol, timeframe) = (:strategy_id, :symbol, :timeframe) ORDER BY id
"""


class Followed(NamedTuple):
    """A position's story."""

    events: list[tuple[Any, ...]]
    intents: list[tuple[Any, ...]]


def work_out(engine: Engine, key: PositionKey, rules: Trading) -> Followed:
    """Work out from candles and outcomes alone what must have happened."""
    with engine.connect() as connection:
        history = load_history(driver_of(connection), {key: 0}, LOOK_BACK)[key]
    state = State()
    events: list[Event] = []
    intents: list[Intent] = []
    for past in history:
        made = step(state, past.bar, past.view, rules)
        state = made.state
        events += made.events
        intents += made.intents
    return Followed([tuple(event) for event in events], [tuple(intent) for intent in intents])


def recorded(engine: Engine, key: PositionKey) -> Followed:
    """Return what is recorded."""
    with engine.connect() as connection:
        events, intents = (
            [tuple(row) for row in connection.execute(text(query), key._asdict())] for query in (_EVENTS, _INTENTS)
        )
    return Followed(events, intents)
