import pytest
from pydantic import ValidationError

from app.domain.candles import Timeframe
from app.domain.strategies import Priority, StrategyDefinition, Subscription


@pytest.mark.parametrize(
    ("symbols", "timeframes", "symbol", "timeframe", "wanted"),
    [
        (("*",), ("*",), "BTC-USDT", "1h", True),
        (("BTC-*",), ("*",), "BTC-USDT", "1h", True),
        (("BTC-*",), ("*",), "WBTC-USDT", "1h", False),
        (("*-USDT",), ("1h", "4h"), "ETH-USDT", "4h", True),
        (("*-USDT",), ("1h",), "ETH-USDT", "4h", False),
        (("ETH-USD", "BTC-USD"), ("1d",), "BTC-USD", "1d", True),
        (("ETH-USD",), ("1d",), "ETH-USDT", "1d", False),
        (("btc-usdt",), ("*",), "BTC-USDT", "1h", False),
        (("???-USD",), ("*",), "ETH-USD", "1m", True),
    ],
)
def test_subscriptions_match_by_symbol_and_timeframe(symbols, timeframes, symbol, timeframe, wanted):
    subscription = Subscription(symbols=symbols, timeframes=timeframes)
    assert subscription.matches(symbol, Timeframe(timeframe)) is wanted


def test_a_definition_states_sensible_defaults():
    definition = StrategyDefinition(name="ema", implementation="ema_cross")
    assert definition.priority is Priority.NORMAL
    assert (definition.limits.timeout_ms, definition.limits.retries) == (5000, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Has Space"},
        {"weight": 0},
        {"weight": float("inf")},
        {"priority": "urgent"},
        {"limits": {"timeout_ms": 0}},
        {"limits": {"retrys": 1}},
        {"subscription": {"symbols": []}},
        {"subscription": {"timeframes": ["2m"]}},
        {"subscription": {"symbols": ["BTC USD"]}},
        {"params_": {}},
    ],
)
def test_a_wrong_definition_is_refused(fields):
    with pytest.raises(ValidationError):
        StrategyDefinition(**{"name": "ema", "implementation": "ema_cross", **fields})
