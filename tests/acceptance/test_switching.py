"""Strategies are switched while the fleet works: from the next candle on, everywhere, and nothing is restarted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from pytest_celery import CeleryTestSetup

from app.benchmark.market import HandedFeed
from app.domain.candles import Candle
from app.domain.strategies import Limits, Priority, StrategyDefinition, StrategyStatus
from app.operations import Operations
from app.settings import Settings
from app.storage.strategies import save_definition
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.registry import Registry
from tests.acceptance.scene import Row, Scene
from tests.building import definition, walk
from tests.waiting import wait_until

SYMBOLS = ("SW-ONE", "SW-TWO")
#: Closes within which both slots have had a part in one: two candles at once, each with a slow strategy.
MANY = 100
#: Candles before the first change: the longest warm-up has passed.
HISTORY = 120

CHANGING = definition("sw.changing", symbols=["SW-*"], params={"fast": 5, "slow": 13})
SLOW = definition("sw.slow", "tests.quant.revealing:Slow", symbols=["SW-*"])


class Answered(NamedTuple):
    """What came of a candle."""

    candle: Candle
    dispatch: Row
    outcomes: dict[str, Row]
    """By strategy."""


class Market:
    """Hands a fleet one close after another, and knows what came of each."""

    def __init__(self, scene: Scene, operations: Operations, feed: HandedFeed) -> None:
        self.scene = scene
        self.operations = operations
        self._feed = feed
        self._coming = iter(zip(*(walk(symbol, 2000) for symbol in SYMBOLS), strict=True))
        self.history: dict[str, list[Candle]] = {symbol: [] for symbol in SYMBOLS}

    def save(self, wanted: StrategyDefinition) -> None:
        with self.operations.changing() as connection:
            save_definition(connection, wanted)

    def hand(self, closes: int) -> None:
        for _ in range(closes):
            candles = next(self._coming)
            for candle in candles:
                self.history[candle.symbol].append(candle)
            self._feed.hand([list(candles)])

    def close(self) -> list[Answered]:
        """Have the candles of one close answered."""
        self.hand(1)
        answered = []
        for symbol in SYMBOLS:
            candle = self.history[symbol][-1]
            dispatch = wait_until(partial(self._dispatch, candle), "it is dispatched", 30)
            assert dispatch is not None
            self.scene.wait_until_landed(symbol)
            landed = [row for row in self.scene.outcomes(symbol) if row["id"] == dispatch["id"]]
            answered.append(Answered(candle, dispatch, {row["name"]: row for row in landed}))
        return answered

    def both_slots(self, check: Callable[[Answered], None]) -> None:
        """Check what comes of every next candle until both slots have had a part in one."""
        seen: set[str] = set()
        for _ in range(MANY):
            for answered in self.close():
                check(answered)
                seen |= {row["worker"] for row in answered.outcomes.values()}
            if len(seen) == 2:
                return
        raise AssertionError(f"only {seen} had a part in {MANY} closes")

    def _dispatch(self, candle: Candle) -> Row | None:
        newest = self.scene.dispatches(candle.symbol)[-1:]
        return newest[0] if newest and newest[0]["open_time"] == candle.open_time else None


@pytest.fixture
def market(celery_setup: CeleryTestSetup, scene: Scene, settings: Settings) -> Iterator[Market]:
    assert celery_setup
    operations, feed = Operations(settings), HandedFeed()
    scene.register(SLOW, CHANGING)
    with scene.producing(feed):
        market = Market(scene, operations, feed)
        market.hand(HISTORY)
        market.both_slots(answers_with(CHANGING, 1, market))
        yield market
        feed.end()
    operations.close()


def changed(**changes: Any) -> StrategyDefinition:
    return CHANGING.model_copy(update=changes)


def answers_with(wanted: StrategyDefinition, revision: int, market: Market) -> Callable[[Answered], None]:
    """Check that an outcome is what this definition says about its candle, and carries its revision."""
    strategy = Registry().create(wanted.implementation, wanted.params)

    def check(answered: Answered) -> None:
        row = answered.outcomes[CHANGING.name]
        assert (row["status"], row["strategy_revision"]) == ("succeeded", revision)
        signal = evaluate(strategy, window(market.history[answered.candle.symbol], market.scene.settings.worker.window))
        assert (row["action"], row["strength"], row["edge"]) == (signal.action, signal.strength, signal.edge)

    return check


def window(history: Sequence[Candle], length: int) -> Bars:
    newest = history[-length:]
    columns = np.array([[c.open, c.high, c.low, c.close, c.volume] for c in newest]).T
    times = np.array([round(c.open_time.timestamp() * 1000) for c in newest])
    return Bars(newest[0].symbol, newest[0].timeframe, times, *columns)


def is_asked(answered: Answered) -> None:
    assert set(answered.outcomes) == {SLOW.name, CHANGING.name}


def is_not_asked(answered: Answered) -> None:
    assert set(answered.outcomes) == {SLOW.name}


def test_every_switch_works_from_the_next_candle_on_in_every_slot(
    market: Market, celery_setup: CeleryTestSetup
) -> None:
    slots = celery_setup.worker.process.slots()
    market.operations.set_status(CHANGING.name, StrategyStatus.PAUSED)
    market.both_slots(is_not_asked)
    market.operations.set_status(CHANGING.name, StrategyStatus.ACTIVE)
    market.both_slots(is_asked)

    slower = changed(params={"fast": 8, "slow": 34})
    market.save(slower)
    market.both_slots(answers_with(slower, 2, market))
    market.save(CHANGING)
    market.both_slots(answers_with(CHANGING, 3, market))

    market.save(changed(weight=7.0))
    market.both_slots(weighs(7.0))
    market.save(changed(priority=Priority.HIGH))
    market.both_slots(travels_with(Priority.HIGH, market))
    market.save(SLOW.model_copy(update={"limits": Limits(timeout_ms=10, retries=0)}))
    market.both_slots(times_out)

    market.operations.set_status(CHANGING.name, StrategyStatus.UNLOADED)
    market.both_slots(is_not_asked)
    assert celery_setup.worker.process.slots() == slots, "nothing was restarted"


def weighs(weight: float) -> Callable[[Answered], None]:
    def check(answered: Answered) -> None:
        place = answered.dispatch["strategy_ids"].index(answered.outcomes[CHANGING.name]["strategy_id"])
        assert answered.dispatch["weights"][place] == weight

    return check


def travels_with(priority: Priority, market: Market) -> Callable[[Answered], None]:
    def check(answered: Answered) -> None:
        key = answered.outcomes[CHANGING.name]["strategy_id"]
        (chunk,) = (
            each.chunk
            for each in market.scene.publisher.sent
            if each.chunk.dispatch_id == answered.dispatch["id"] and key in {job.strategy_id for job in each.chunk.jobs}
        )
        assert chunk.priority is priority

    return check


def times_out(answered: Answered) -> None:
    assert answered.outcomes[SLOW.name]["status"] == "timed_out"
