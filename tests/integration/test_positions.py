"""Positions of real slots on a real ledger: every candle once and in order, however its jobs arrive."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine

from app.broker import create_celery
from app.domain.candles import Candle
from app.domain.jobs import Chunk
from app.domain.orders import PositionKey
from app.domain.positions import Event, Intent, State, step
from app.domain.strategies import Limits, Trading
from app.settings import Settings
from app.storage.engine import driver_of, open_engine
from app.storage.positions import LOOK_BACK, load_history
from tests.building import definition, register, walk
from tests.integration.ledger import build_dispatcher, rows
from workers.lifecycle import Slot, open_slot
from workers.shared import Shared

pytestmark = pytest.mark.timeout(120, method="thread")

#: Trades on every change, with all kinds of ends.
BUSY = Trading(stop_percent=1.0, target_percent=2.0, trailing_percent=1.5)
#: Follows the levels of signals.
FOLLOWING = Trading(adjust_percent=0.1, size_by_strength=True)

EVENTS = """
    SELECT strategy_id, symbol, open_time, number, strategy_revision, kind, reason, side, price, quantity, fee, profit,
           stop, target, correlation_id
    FROM position_events ORDER BY strategy_id, symbol, open_time, number
"""
ACTIONS = """
    SELECT idempotency_key, strategy_revision, kind, side, size_percent, quantity, price, stop, target, correlation_id
    FROM actions ORDER BY idempotency_key
"""

SAID = """
    SELECT symbol, open_time, strategy_id, status, action, strength, detail
    FROM outcomes JOIN dispatches ON id = dispatch_id ORDER BY 1, 2, 3
"""

OpenSlot = Callable[[], Slot]


@contextmanager
def slots_on(settings: Settings) -> Iterator[OpenSlot]:
    before = signal.getsignal(signal.SIGALRM)
    opened: list[Slot] = []

    def start() -> Slot:
        opened.append(open_slot(create_celery(settings), settings, Shared()))
        return opened[-1]

    yield start
    for slot in opened:
        slot.close()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def new_slot(settings: Settings) -> Iterator[OpenSlot]:
    with slots_on(settings) as start:
        yield start


def trade(engine: Engine, *, series: Sequence[Sequence[Candle]], width: int = 32) -> list[Chunk]:
    """Register strategies that trade, and dispatch series; return their chunks, oldest first."""
    limits = Limits(retries=0)
    register(
        engine,
        definition("busy", "ema_cross", params={"fast": 3, "slow": 8}, limits=limits, trading=BUSY),
        definition("following", "supertrend", limits=limits, trading=FOLLOWING),
        definition("reverting", "bollinger_reversion", limits=limits, trading=FOLLOWING),
        definition("restless", "tests.quant.trading:Restless", limits=limits, trading=FOLLOWING),
        definition("watching", "macd", limits=limits),
    )
    dispatcher = build_dispatcher(engine, jobs_in_chunk=width)
    closes = [list(close) for close in zip(*series, strict=True)]
    return [envelope.chunk for close in closes for envelope in dispatcher.write(close).envelopes]


def recorded(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(engine, EVENTS)


def followed(engine: Engine, key: PositionKey, rules: Trading) -> tuple[State, list[Event], list[Intent]]:
    """Work out from the ledger alone, one candle after the other, what a position must be."""
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
    return state, events, intents


def in_disorder(chunks: Sequence[Chunk], seed: int) -> list[list[Chunk]]:
    """Return messages of one to six chunks: some twice, and nothing in its order."""
    chance = random.Random(seed)
    pool = [*chunks, *chance.sample(list(chunks), len(chunks) // 3)]
    # by a little at first, as slots disorder them, and some from far away
    order = sorted(range(len(pool)), key=lambda at: at + chance.choice((0.0, 8.0, 8.0, 40.0)) * chance.random())
    messages, at = [], 0
    while at < len(order):
        size = chance.randint(1, 6)
        messages.append([pool[place] for place in order[at : at + size]])
        at += size
    return messages


def test_positions_follow_from_the_ledger(engine: Engine, new_slot: OpenSlot) -> None:
    chunks = trade(engine, series=[walk("BTC-USD", 150)])
    slot = new_slot()
    for chunk in chunks:
        slot.executor.execute([chunk])
    found = recorded(engine)
    for strategy_id, rules in ((1, BUSY), (2, FOLLOWING), (3, FOLLOWING), (4, FOLLOWING)):
        _, events, intents = followed(engine, PositionKey(strategy_id, "BTC-USD", "1h"), rules)
        own = [row for row in found if row[0] == strategy_id]
        assert [(row[3], *row[5:14]) for row in own] == [(e.number, *e[2:]) for e in events]
        asked = "SELECT kind, side, size_percent, quantity, price FROM actions WHERE strategy_id = :id ORDER BY id"
        placed = rows(engine, asked, id=strategy_id)
        assert placed == [(i.kind, i.side, i.size_percent, i.quantity, i.price) for i in intents]
    assert {row[6] for row in found} == {"signal", "stop", "target", "trailing", "levels", "strength"}
    assert {row[0] for row in found} == {1, 2, 3, 4}
    assert all(row[14] for row in found)


@pytest.mark.parametrize("seed", range(6))
def test_order_repetition_and_slots_change_nothing(
    engine: Engine, new_slot: OpenSlot, settings: Settings, deploy: Any, seed: int
) -> None:
    series = [walk("BTC-USD", 120, seed), walk("ETH-USD", 120, seed + 1)]
    slots = [new_slot() for _ in range(3)]
    chance = random.Random(seed)
    for message in in_disorder(trade(engine, series=series, width=(32, 2)[seed % 2]), seed):
        chance.choice(slots).executor.execute(message)
    with deploy() as other, slots_on(other) as open_other, open_engine(other.database_dsn, name="tests") as apart:
        single = open_other()
        for chunk in trade(apart, series=series):
            single.executor.execute([chunk])
        assert rows(engine, SAID) == rows(apart, SAID)
        assert [row[:-1] for row in recorded(engine)] == [row[:-1] for row in recorded(apart)]
        assert [row[:-1] for row in rows(engine, ACTIONS)] == [row[:-1] for row in rows(apart, ACTIONS)]
        assert len(recorded(engine)) > 50
