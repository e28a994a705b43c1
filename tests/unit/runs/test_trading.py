"""What signals come to: trades and a curve, against numbers worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from app.domain.advancing import Cells
from app.domain.candles import Timeframe
from app.domain.strategies import Trading
from app.runs.shapes import Trade
from app.runs.spans import Span
from app.runs.trading import Traded, trade
from app.strategies.bars import Bars

HOUR_MS = 3_600_000


def traded(
    opens: Sequence[float], closes: Sequence[float], actions: Sequence[int], rules: Trading, **more: Sequence[float]
) -> Traded:
    count = len(opens)
    open_, close = np.array(opens), np.array(closes)
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    bars = Bars("A", Timeframe.H1, np.arange(count) * HOUR_MS, open_, high, low, close, np.ones(count))
    nothing = np.full(count, np.nan)
    strength = np.array(more.get("strength", [1.0] * count))
    cells = Cells(np.ones(count, bool), np.array(actions, np.int8), strength, nothing, nothing)
    return trade(Span(bars, 0, 512, 0), cells, rules)


def test_a_long_and_a_short_with_fees_and_slippage() -> None:
    rules = Trading(capital=1000.0, size_percent=10.0, fee_percent=1.0, slippage_percent=0.0)
    made = traded([10, 10, 12, 12, 9, 9], [10, 12, 12, 11, 9, 9], [1, 1, -1, -1, 0, 0], rules)
    # ordered at closes of 10 and 12: 100 of the capital each
    assert [tuple(each) for each in made.trades] == [
        (HOUR_MS, 3 * HOUR_MS, 1, 10.0, 10.0, 12.0, pytest.approx(2.2), pytest.approx(17.8), "signal"),
        (3 * HOUR_MS, 5 * HOUR_MS, -1, 100 / 12, 12.0, 9.0, pytest.approx(1.75), pytest.approx(23.25), "signal"),
    ]
    assert made.curve.times_ms.tolist() == [HOUR_MS * (n + 1) for n in range(6)]
    # in at 10 with a fee of 1; closes at 12; turned round at 12: 17.8 won, a fee of 1; closes at 11, 9; out at 9
    expected = [1000, 1019, 1019, 1017.8 - 1 + 100 / 12, 1017.8 - 1 + 25, 1041.05]
    np.testing.assert_allclose(made.curve.equity, expected)
    np.testing.assert_allclose(
        made.curve.exposure, [0, 120 / 1019, 120 / 1019, -(1100 / 12) / expected[3], -75 / 1041.8, 0]
    )


def test_a_position_that_is_reduced_is_one_trade_at_the_mean_of_its_exits() -> None:
    rules = Trading(capital=1000.0, size_percent=10.0, fee_percent=0, slippage_percent=0, size_by_strength=True)
    made = traded([10] * 2 + [20, 40, 40], [10, 10, 20, 40, 40], [1, 1, 0, 0, 0], rules, strength=[1, 0.5, 0, 0, 0])
    # 10 bought at 10, 5 sold at 20 and 5 at 40
    assert list(made.trades) == [Trade(HOUR_MS, 3 * HOUR_MS, 1, 10.0, 10.0, 30.0, 0.0, 200.0, "signal")]
    np.testing.assert_allclose(made.curve.equity, [1000, 1000, 1100, 1200, 1200])


def test_nothing_said_is_nothing_done() -> None:
    made = traded([10, 11, 12], [11, 12, 13], [0, 0, 0], Trading())
    assert list(made.trades) == []
    assert made.curve.equity.tolist() == [100_000.0] * 3
    assert made.curve.exposure.tolist() == [0.0] * 3
