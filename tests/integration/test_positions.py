"""Positions of real slots on a real ledger: every candle once and in order, however its jobs arrive."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from threading import Barrier, Lock
from typing import Any

import pytest
from sqlalchemy import Engine

from app.broker import create_celery
from app.domain.candles import Candle
from app.domain.jobs import Chunk, OutcomeStatus, Signal
from app.domain.orders import PositionKey
from app.domain.positions import Event, EventKind, Reason, State
from app.domain.strategies import Limits, StrategyDefinition, StrategyStatus, Trading
from app.settings import Settings
from app.storage.engine import driver_of, open_engine
from app.storage.landing import Landing, land_all, land_ends
from app.storage.positions import Checkpoint, Move, Told, load_checkpoints, read_saved, send_moves
from app.storage.strategies import set_status
from tests.building import START, candle, definition, outcome, register, walk
from tests.following import recorded, work_out
from tests.integration.ledger import RULES, build_dispatcher, rows, together
from tests.integration.ledger import driver_of as driver_for
from workers.lifecycle import Slot, open_slot
from workers.runtime.positions import SAVE_AFTER, PositionKeeper
from workers.runtime.strategies import Runtime
from workers.shared import Shared

HOUR = timedelta(hours=1)

pytestmark = pytest.mark.timeout(120, method="thread")

#: Trades on every change, with all kinds of ends.
BUSY = Trading(stop_percent=1.0, target_percent=2.0, trailing_percent=1.5)
#: Neither levels nor costs.
PLAIN = Trading(fee_percent=0, slippage_percent=0)
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
    for strategy_id, rules in ((1, BUSY), (2, FOLLOWING), (3, FOLLOWING), (4, FOLLOWING)):
        key = PositionKey(strategy_id, "BTC-USD", "1h")
        assert recorded(engine, key) == work_out(engine, key, rules)
    found = rows(engine, EVENTS)
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
        assert [row[:-1] for row in rows(engine, EVENTS)] == [row[:-1] for row in rows(apart, EVENTS)]
        assert [row[:-1] for row in rows(engine, ACTIONS)] == [row[:-1] for row in rows(apart, ACTIONS)]
        assert len(rows(engine, EVENTS)) > 50


def chunks_of(engine: Engine, *words: Candle) -> list[Chunk]:
    """Dispatch candles, one after the other."""
    dispatcher = build_dispatcher(engine)
    return [envelope.chunk for each in words for envelope in dispatcher.write([each]).envelopes]


def follows(name: str, script: str, trading: Trading | None = PLAIN, **changes: Any) -> StrategyDefinition:
    """Define a strategy that says what a script says, candle by candle of the made-up series."""
    params = {"script": script, "since_ms": int(START.timestamp() * 1000)}
    return definition(name, "tests.quant.trading:Follows", params=params, trading=trading, **changes)


def told(engine: Engine) -> list[tuple[int, str, str]]:
    """Return hour, kind and side of what happened."""
    query = "SELECT open_time, kind, side FROM position_events ORDER BY open_time, number"
    words = {1: "long", -1: "short"}
    return [((opened - START) // HOUR, kind, words[side]) for opened, kind, side in rows(engine, query)]


def test_every_slot_and_message_at_the_same_time(engine: Engine) -> None:
    """Four threads, each a slot of its own to Postgres, take messages in disorder and twice."""
    series = [walk("BTC-USD", 90, 3), walk("ETH-USD", 90, 4)]
    messages = in_disorder(trade(engine, series=series, width=2), seed=5)
    rules = {1: BUSY, 2: FOLLOWING, 3: FOLLOWING, 4: FOLLOWING, 5: None}
    shared = iter(messages)
    taking = Lock()

    def work() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            keeper = PositionKeeper(lambda action: action(connection), 20.0, 8)
            while True:
                with taking:
                    message = next(shared, None)
                if message is None:
                    return
                done = [ran(chunk, rules) for chunk in message]
                landings = [each.landing for each in done]
                keeper.land(done, partial(land_all, driver_of(connection), landings, "test", RULES))

    together(*[work] * 4)
    for symbol in ("BTC-USD", "ETH-USD"):
        for strategy_id, trading in rules.items():
            key = PositionKey(strategy_id, symbol, "1h")
            if trading is None:
                assert recorded(engine, key) == ([], [])
            else:
                assert recorded(engine, key) == work_out(engine, key, trading)
                assert len(recorded(engine, key).events) > 20


def ran(chunk: Chunk, rules: Mapping[int, Trading | None]) -> Ended:
    """Make up how the jobs of a chunk ended: always the same for the same candle and strategy."""
    outcomes = []
    for job in chunk.jobs:
        chance = random.Random(f"{chunk.candle.symbol} {chunk.candle.open_time} {job.strategy_id}")
        close = chunk.candle.close
        signal = Signal(action=chance.choice((-1, 0, 1, 1)), strength=chance.random(), stop=close * 0.97)
        failed = chance.random() < 0.1
        status = OutcomeStatus.FAILED if failed else OutcomeStatus.SUCCEEDED
        outcomes.append(outcome(job.strategy_id, status=status, signal=None if failed else signal))
    runtimes = [Runtime("made up", Limits(), None, trading=rules[job.strategy_id]) for job in chunk.jobs]
    return Ended(chunk, runtimes, Landing(chunk.dispatch_id, outcomes))


@dataclass(frozen=True)
class Ended:
    chunk: Chunk
    runtimes: Sequence[Runtime]
    landing: Landing


def test_a_position_waits_for_an_outcome_that_is_missing_and_then_catches_up(
    engine: Engine, new_slot: OpenSlot
) -> None:
    register(engine, follows("one", "+-+-"))
    first, second, third, fourth = chunks_of(engine, *(candle(n) for n in range(4)))
    slot, other = new_slot(), new_slot()
    slot.executor.execute([first])
    other.executor.execute([fourth])
    other.executor.execute([third])
    assert told(engine) == []
    slot.executor.execute([second])
    assert [hour for hour, _, _ in told(engine)] == [1, 2, 2, 3, 3]


def test_what_is_recorded_counts_and_not_what_was_computed(engine: Engine, new_slot: OpenSlot) -> None:
    register(engine, follows("one", "0++"))
    first, second = chunks_of(engine, candle(0), candle(1))
    slot = new_slot()
    slot.executor.execute([first])
    with engine.begin() as connection:
        land_ends(
            connection, second.dispatch_id, second.jobs, OutcomeStatus.CANCELLED,
            reason="Cancelled", text="taken back", by="test", rules=RULES,
        )  # fmt: skip
    slot.executor.execute([second])
    assert rows(engine, "SELECT count(*) FROM actions") == [(0,)]
    for chunk in chunks_of(engine, candle(2), candle(3)):
        slot.executor.execute([chunk])
    assert told(engine) == [(3, "opened", "long")]


def test_a_row_that_somebody_else_has_written_is_left_alone(engine: Engine) -> None:
    key, opened_ms = PositionKey(1, "BTC-USD", "1h"), int(START.timestamp() * 1000)

    def move(version: int, quantity: float) -> Move:
        event = Event(opened_ms, 0, EventKind.OPENED, Reason.SIGNAL, 1, 100.0, quantity, 0.0, 0.0, None, None)
        checkpoint = Checkpoint(State(side=1, quantity=quantity), opened_ms, version, 1)
        return Move(key, checkpoint, "c", [Told(event, 1, "c")], [])

    with driver_for(engine) as driver:
        assert read_saved(send_moves(driver, [move(0, 1.0)])) == {key}
        for version in (0, 2):
            assert read_saved(send_moves(driver, [move(version, 2.0)])) == set()
        assert load_checkpoints(driver, {key: 0}) == {}, "there is no such strategy"
    assert rows(engine, "SELECT version, quantity FROM positions") == [(1, 1.0)]
    assert rows(engine, "SELECT quantity FROM position_events") == [(1.0,)]


def test_paused_strategy_keeps_its_position_and_says_nothing_meanwhile(engine: Engine, new_slot: OpenSlot) -> None:
    register(engine, follows("one", "+++---+"), definition("other"))
    slot = new_slot()
    early = chunks_of(engine, *(candle(n) for n in range(3)))
    with engine.begin() as connection:
        set_status(connection, "one", StrategyStatus.PAUSED)
    middle = chunks_of(engine, *(candle(n) for n in range(3, 6)))
    with engine.begin() as connection:
        set_status(connection, "one", StrategyStatus.ACTIVE)
    late = chunks_of(engine, candle(6), candle(7))
    for chunk in (*early, *middle, *late):
        slot.executor.execute([chunk])
    assert told(engine) == [(1, "opened", "long")]
    assert rows(engine, "SELECT side, strategy_revision FROM positions") == [(1, 1)]


def test_stop_is_watched_while_a_strategy_is_paused(engine: Engine, new_slot: OpenSlot) -> None:
    register(engine, follows("one", "+", BUSY), definition("other"))
    slot = new_slot()
    early = chunks_of(engine, candle(0), candle(1, low=99.9, high=100.1, close=100.0))
    with engine.begin() as connection:
        set_status(connection, "one", StrategyStatus.PAUSED)
    middle = chunks_of(engine, candle(2, low=50.0))
    with engine.begin() as connection:
        set_status(connection, "one", StrategyStatus.ACTIVE)
    for chunk in (*early, *middle, *chunks_of(engine, candle(3))):
        slot.executor.execute([chunk])
    assert told(engine) == [(1, "opened", "long"), (2, "closed", "long")]


def test_new_revision_carries_the_position_on(engine: Engine, new_slot: OpenSlot) -> None:
    register(engine, follows("one", "+"))
    before = chunks_of(engine, candle(0), candle(1))
    register(engine, follows("one", "-"))
    slot, other = new_slot(), new_slot()
    for chunk in (*before, *chunks_of(engine, candle(2), candle(3))):
        slot.executor.execute([chunk])
    query = "SELECT strategy_revision, kind, side FROM position_events ORDER BY id"
    assert rows(engine, query) == [(1, "opened", 1), (2, "closed", 1), (2, "opened", -1)]
    other.executor.execute(chunks_of(engine, candle(4)))
    assert rows(engine, "SELECT side, trades FROM positions") == [(-1, 1)]


def test_trading_begins_with_the_candles_dispatched_since_it_was_switched_on(
    engine: Engine, new_slot: OpenSlot
) -> None:
    slot = new_slot()
    register(engine, follows("one", "+", None))
    for chunk in chunks_of(engine, candle(0), candle(1)):
        slot.executor.execute([chunk])
    changed = register(engine, follows("one", "+"))
    assert [strategy.revision for strategy in changed] == [1]
    for chunk in chunks_of(engine, candle(2), candle(3)):
        slot.executor.execute([chunk])
    assert told(engine) == [(3, "opened", "long")]
    register(engine, follows("one", "+", PLAIN.model_copy(update={"enabled": False})))
    for chunk in chunks_of(engine, candle(4, low=1.0)):
        slot.executor.execute([chunk])
    assert rows(engine, "SELECT side FROM positions") == [(1,)], "it stays, and nobody watches it"


def test_correction_and_late_candle_change_nothing_that_was_applied(engine: Engine, new_slot: OpenSlot) -> None:
    register(engine, follows("one", "+"))
    slot = new_slot()
    for chunk in chunks_of(engine, candle(0), candle(1), candle(3)):
        slot.executor.execute([chunk])
    before = rows(engine, EVENTS)
    for chunk in chunks_of(engine, candle(1, open=90.0, low=80.0), candle(2, open=90.0, low=80.0)):
        slot.executor.execute([chunk])
    new_slot().executor.execute(chunks_of(engine, candle(4)))
    assert rows(engine, EVENTS) == before and len(before) == 1


def test_strategies_on_one_symbol_never_see_each_other(engine: Engine, new_slot: OpenSlot, deploy: Any) -> None:
    restless = definition("three", "tests.quant.trading:Restless", trading=BUSY)
    beside = [follows("two", "-0+", Trading(size_percent=20.0)), restless]
    candles = walk("BTC-USD", 40)
    own = """
        SELECT open_time, kind, reason, price, quantity, fee, profit FROM position_events
        WHERE strategy_id = 1 ORDER BY id
    """
    register(engine, follows("one", "+0-"), *beside)
    slot = new_slot()
    slot.executor.execute(chunks_of(engine, *candles))
    with deploy() as other, slots_on(other) as open_other, open_engine(other.database_dsn, name="tests") as apart:
        register(apart, follows("one", "+0-"))
        open_other().executor.execute(chunks_of(apart, *candles))
        assert rows(engine, own) == rows(apart, own) != []


def test_slot_that_died_after_recording_is_made_up_for_by_the_message_that_comes_again(
    engine: Engine, new_slot: OpenSlot
) -> None:
    register(engine, follows("one", "+"))
    first, second = chunks_of(engine, candle(0), candle(1))
    slot = new_slot()
    slot.executor.execute([first])
    # recorded, and nothing that follows from it: the other slot came that far
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        done = [outcome(1, signal=Signal(action=1))]
        land_all(driver_of(connection), [Landing(second.dispatch_id, done)], "dead", RULES)
    assert told(engine) == []
    # an old message: its jobs are found to have ended, and do not run again
    slot.executor.execute([second.model_copy(update={"attempt": 1})])
    assert told(engine) == [(1, "opened", "long")]


def test_quiet_positions_are_written_now_and_then(engine: Engine, new_slot: OpenSlot) -> None:
    register(engine, follows("one", "0"))
    chunks = chunks_of(engine, *(candle(n) for n in range(SAVE_AFTER + 5)))
    slot = new_slot()
    for chunk in chunks[: SAVE_AFTER - 1]:
        slot.executor.execute([chunk])
    assert rows(engine, "SELECT count(*) FROM positions") == [(0,)]
    for chunk in chunks[SAVE_AFTER - 1 :]:
        slot.executor.execute([chunk])
    query = "SELECT side, version, applied_open_time FROM positions"
    assert rows(engine, query) == [(0, 1, START + (SAVE_AFTER - 1) * HOUR)]


def test_open_intents_of_all_slots_together_stay_below_the_cap(engine: Engine) -> None:
    """Nine strategies open at the same candle from as many connections: exactly what fits is sent."""
    count, cap = 9, 5.5
    register(engine, *(follows(f"s{n:02}", "+0") for n in range(count)))
    chunks = [chunk.split() for chunk in chunks_of(engine, *(candle(n) for n in range(4)))]

    all_there = Barrier(count)

    def slot(number: int) -> Callable[[], None]:
        def work() -> None:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                keeper = PositionKeeper(lambda action: action(connection), cap, 8)
                for hour, parts in enumerate(chunks):
                    all_there.wait(60)  # a position that is closed makes room for another
                    chunk = parts[number]
                    signal = Signal(action=1 if hour < 2 else 0)
                    landing = Landing(chunk.dispatch_id, [outcome(chunk.jobs[0].strategy_id, signal=signal)])
                    runtime = Runtime("made up", Limits(), None, trading=PLAIN)
                    done = Ended(chunk, [runtime], landing)
                    keeper.land([done], partial(land_all, driver_of(connection), [landing], "test", RULES))

        return work

    together(*(slot(number) for number in range(count)))
    states = rows(engine, "SELECT kind, state, count(*) FROM actions GROUP BY 1, 2 ORDER BY 1, 2")
    assert states == [("close", "pending", 5), ("close", "refused", 4), ("open", "pending", 5), ("open", "refused", 4)]
    pairs = """
        SELECT count(*) FROM actions a JOIN actions b USING (strategy_id)
        WHERE a.kind = 'open' AND b.kind = 'close' AND a.state <> b.state
    """
    assert rows(engine, pairs) == [(0,)]
    reasons = rows(engine, "SELECT DISTINCT reason FROM actions WHERE state = 'refused' ORDER BY 1")
    assert [reason for (reason,) in reasons][-1] == "its opening was refused"
    assert "would pass the cap of 5.5 %" in reasons[0][0]
    assert rows(engine, "SELECT count(*) FROM position_events WHERE kind = 'opened'") == [(count,)]
    assert rows(engine, "SELECT sum(risk_percent) FROM positions") == [(0.0,)]
