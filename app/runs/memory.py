"""How much of its past an answer remembers: whether a whole range at once answers as a window does. Pure."""

from __future__ import annotations

import math

from app.strategies.indicators import TAIL_WEIGHT, Indicator
from app.strategies.sdk import Strategy

#: What may be left of the candles before a window, as a share: what the gate takes two answers for equal by.
FORGOTTEN = 1e-7

#: Windows' worth of TAIL_WEIGHT that leave FORGOTTEN.
_TIMES = math.log(FORGOTTEN) / math.log(TAIL_WEIGHT)

#: Indicators that look at a fixed number of candles and at nothing before them.
_FINITE = frozenset(
    ("sma", "wma", "stddev", "roc", "cci", "highest", "lowest", "bollinger", "stochastic", "donchian", "vwap")
)


def forgets_within(strategy: Strategy, window: int) -> bool:
    """Tell whether a strategy's declared indicators have forgotten, after a window, what came before it.

    Args:
        strategy: any.
        window: candles.
    """
    return all(_memory(indicator) + strategy.reach <= window for indicator in strategy.declared.values())


def candles_remembered(strategy: Strategy, window: int) -> int:
    """Return how many candles a strategy's answer about the last one depends on, `window` at most.

    Args:
        strategy: any; of one that declares no indicator nothing is known, and it is given the whole window.
        window: candles of a worker's window.
    """
    if not strategy.declared:
        return window
    remembered = max(_memory(indicator) for indicator in strategy.declared.values()) + strategy.reach
    return min(window, max(remembered, strategy.warmup))


def _memory(indicator: Indicator) -> int:
    """Return after how many candles an indicator has forgotten."""
    return indicator.settled if indicator.name in _FINITE else math.ceil(indicator.settled * _TIMES)
