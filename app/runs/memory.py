"""How much of its past an answer remembers: whether a whole range at once answers as a window does. Pure."""

from __future__ import annotations

import math

from app.domain.candles import Timeframe
from app.strategies.formulas import TAIL_WEIGHT
from app.strategies.indicators import Indicator
from app.strategies.sdk import Strategy

#: What may be left of the candles before a window, as a share: what the gate takes two answers for equal by.
FORGOTTEN = 1e-7

#: Windows' worth of TAIL_WEIGHT that leave FORGOTTEN.
_TIMES = math.log(FORGOTTEN) / math.log(TAIL_WEIGHT)

#: Indicators that look at a fixed number of candles and at nothing before them.
_FINITE = frozenset(
    "sma wma stddev roc cci highest lowest bollinger stochastic donchian vwap volume candle".split()  # noqa: SIM905
)


def forgets_within(strategy: Strategy, window: int, timeframe: Timeframe) -> bool:
    """Tell whether a strategy's declared indicators have forgotten, after a window, what came before it.

    Args:
        strategy: any.
        window: candles.
        timeframe: of the candles.

    Raises:
        TimeframeError: candles of that timeframe cannot make those of a higher one that is declared.
    """
    return all(_memory(each, timeframe) + strategy.reach <= window for each in strategy.declared.values())


def _memory(indicator: Indicator, timeframe: Timeframe) -> int:
    """Return after how many candles an indicator has forgotten."""
    settled = indicator.settled_on(timeframe) if indicator.timeframe else indicator.settled
    return settled if indicator.name in _FINITE else math.ceil(settled * _TIMES)
