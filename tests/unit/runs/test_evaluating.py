"""Units over whole ranges: their cells do not depend on how the range is cut, and are those of live's windows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.advancing import Cells
from app.domain.candles import Timeframe
from app.domain.runs import Method
from app.errors import InvalidSignalError
from app.runs import spans
from app.runs.evaluating import evaluate_span
from app.runs.spans import Span, block_start
from app.strategies.bars import Bars
from app.strategies.builtin import BUILTINS
from app.strategies.sdk import Indicator, Lines, Signals, Strategy, signals_from_score
from tests.building import walk

#: A series of several blocks, were blocks this long; every built-in's window.
BLOCK, WINDOW, STORED = 300, 512, 2000
BARS = Bars.from_candles(walk("ABC", STORED))


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "BLOCK", BLOCK)


def span_of(begin: int, end: int, *, window: int = WINDOW) -> Span:
    """Build the span of some places of BARS, with what a slot loads before them."""
    since = block_start(int(BARS.open_time[begin]), Timeframe.H1)
    loaded = max(0, int(np.searchsorted(BARS.open_time, since)) - window + 1)
    return Span(BARS.first(end).last(end - loaded), begin - loaded, window, 1 << 30)


class Higher(Strategy):
    """Looks at a higher timeframe, whose candles blocks and windows cut in the middle."""

    average = Indicator.ema(4).on("4h")
    day = Indicator.candle(line="close").on("1d")

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return signals_from_score(indicators["average"] / indicators["day"] - 1.0, bars.high - bars.low, bars.close)


STRATEGIES: dict[str, type[Strategy]] = {**BUILTINS, "higher": Higher}


def joined(parts: list[Cells]) -> list[Any]:
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(sorted(STRATEGIES)), cuts=st.lists(st.integers(1, STORED - 1), max_size=5, unique=True))
def test_cells_do_not_depend_on_how_the_range_is_cut(name: str, cuts: list[int]) -> None:
    strategy = STRATEGIES[name]()
    whole = evaluate_span(strategy, span_of(0, STORED), Method.AUTO)
    edges = [0, *sorted(cuts), STORED]
    parts = [evaluate_span(strategy, span_of(*pair), Method.AUTO) for pair in pairwise(edges)]
    for column, other in zip(whole, joined(parts), strict=True):
        np.testing.assert_array_equal(column, other)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_built_ins_say_over_a_range_what_they_say_live(name: str) -> None:
    strategy, span = STRATEGIES[name](), span_of(0, STORED)
    ranged, live = (evaluate_span(strategy, span, method) for method in (Method.AUTO, Method.WINDOWS))
    np.testing.assert_array_equal(ranged.action, live.action)
    np.testing.assert_allclose(ranged.strength, live.strength, rtol=0, atol=1e-7)
    for column in ("stop", "target"):
        np.testing.assert_allclose(getattr(ranged, column), getattr(live, column), rtol=1e-9)
    assert len({*live.action.tolist()}) > 1  # they say something


def test_strategies_share_what_was_computed_until_there_is_too_much() -> None:
    span = span_of(600, STORED)
    caches = [block.indicators for block in span.blocks()]
    evaluate_span(BUILTINS["ema_cross"](), span, Method.AUTO)
    assert [block.indicators for block in span.blocks()] == caches
    small = Span(span.bars, span.first, WINDOW, 1)
    before = [block.indicators for block in small.blocks()]
    evaluate_span(BUILTINS["ema_cross"](), small, Method.AUTO)
    assert not {*map(id, before)} & {id(block.indicators) for block in small.blocks()}


class Wrong(Strategy):
    """Answers as it is told."""

    answer: Callable[[int], Any]

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return type(self).answer(len(bars))  # type: ignore[no-any-return]


def ones(count: int, dtype: Any = np.float64) -> Any:
    return np.ones(count, dtype)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda n: "no", "expected Signals from signals()"),
        (lambda n: Signals(ones(n), ones(n)), "action as int8 array"),
        (lambda n: Signals(ones(n - 1, np.int8), ones(n)), "action as int8 array of shape"),
        (lambda n: Signals(2 * ones(n, np.int8), ones(n)), "action to be -1, 0 or 1, found 2"),
        (lambda n: Signals(ones(n, np.int8), 1.5 * ones(n)), "strength to be 0 to 1, found 1.5"),
        (lambda n: Signals(ones(n, np.int8), np.nan * ones(n)), "strength to be 0 to 1, found nan"),
        (lambda n: Signals(ones(n, np.int8), ones(n), stop=-ones(n)), "stop to be a finite price above 0"),
        (lambda n: Signals(ones(n, np.int8), ones(n), edge=np.inf * ones(n)), "edge to be a finite number"),
    ],
)
def test_a_wrong_answer_is_refused_with_its_candle(answer: Callable[[int], Any], expected: str) -> None:
    Wrong.answer = staticmethod(answer)
    with pytest.raises(InvalidSignalError, match="strategy 'w' on ABC 1h candle opened 2024-01-") as refused:
        evaluate_span(Wrong(name="w"), span_of(100, 400), Method.AUTO)
    assert expected in str(refused.value)
