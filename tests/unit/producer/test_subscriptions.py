from app.domain.candles import Timeframe
from app.domain.jobs import JobKey
from app.domain.strategies import (
    Limits,
    Priority,
    RegisteredStrategy,
    StrategyDefinition,
    StrategyStatus,
    Subscription,
)
from app.producer.planner import NAMES_SHOWN, Planner
from app.producer.subscriptions import Subscriptions
from app.settings import DispatchSettings

PLANNER = Planner(DispatchSettings(trusted_after=0))


def registered(number: int, **fields: object) -> RegisteredStrategy:
    definition = StrategyDefinition.model_validate({"name": f"s{number}", "implementation": "ema_cross", **fields})
    return RegisteredStrategy(id=number, revision=number + 10, definition=definition)


def test_only_active_subscribed_strategies_are_asked():
    strategies = [
        registered(1),
        registered(2, status=StrategyStatus.PAUSED),
        registered(3, subscription=Subscription(symbols=("ETH-*",))),
        registered(4, subscription=Subscription(timeframes=(Timeframe.D1,))),
        registered(5, status=StrategyStatus.UNLOADED),
    ]
    subscriptions = Subscriptions(1, strategies, PLANNER)
    roster = subscriptions.match("BTC-USD", Timeframe.H1)
    assert roster is not None
    assert roster.expected.strategy_ids == "{1}"
    eth = subscriptions.match("ETH-USD", Timeframe.D1)
    assert eth is not None
    assert eth.expected.strategy_ids == "{1,3,4}"


def test_nobody_subscribed():
    assert Subscriptions(1, [registered(1, status=StrategyStatus.PAUSED)], PLANNER).match("X-Y", Timeframe.M1) is None


def test_chunks_hold_one_priority_each_urgent_first():
    strategies = [
        registered(1, priority=Priority.LOW, weight=2.5),
        registered(2, priority=Priority.HIGH, limits=Limits(timeout_ms=100)),
        registered(3),
        registered(4, priority=Priority.HIGH, limits=Limits(timeout_ms=400)),
    ]
    roster = Subscriptions(1, strategies, PLANNER).match("BTC-USD", Timeframe.H1)
    assert roster is not None
    assert [(chunk.priority, chunk.jobs) for chunk in roster.plan.chunks] == [
        (Priority.HIGH, (JobKey(2, 12), JobKey(4, 14))),
        (Priority.NORMAL, (JobKey(3, 13),)),
        (Priority.LOW, (JobKey(1, 11),)),
    ]
    assert [chunk.label for chunk in roster.plan.chunks] == [None, "s3", "s1"]
    assert roster.plan.chunks[0].names == "s2, s4"
    assert roster.plan.chunks[0].timeout_s == 0.4
    assert (roster.expected.weights, roster.expected.revisions) == ("{2.5,1.0,1.0,1.0}", "{11,12,13,14}")


def test_long_lists_of_names_are_cut():
    roster = Subscriptions(1, [registered(n) for n in range(1, 200)], PLANNER).match("BTC-USD", Timeframe.H1)
    assert roster is not None
    assert len(roster.plan.chunks[0].names) == NAMES_SHOWN
