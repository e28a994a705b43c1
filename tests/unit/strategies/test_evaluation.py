from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from app.domain.jobs import Signal
from app.errors import InvalidSignalError, UnknownIndicatorError
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.indicators import Indicator, IndicatorCache
from app.strategies.sdk import Context, Lines, Signals, Strategy
from tests.unit.strategies.market import random_walk

BARS = random_walk(40)
#: Candle 39 of hourly candles from the epoch on.
CANDLE = "strategy 'mine' on BTC-USDT 1h candle opened 1970-01-02T15:00:00\\+00:00: "
ZEROS, FLAT = np.zeros(40), np.zeros(40, np.int8)


class Answering(Strategy):
    """Answers whatever the test gives it."""

    def __init__(self, answer: Any) -> None:
        super().__init__(name="mine")
        self.answer = answer

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return self.answer  # type: ignore[no-any-return]


class PerCandle(Strategy):
    """Long above the average, candle by candle."""

    average = Indicator.sma(10)

    def on_candle(self, context: Context) -> Signal:
        above = context.close > context.value("average")
        return Signal(action=1 if above else -1, strength=0.5, extras={"index": context.index})


class Calling(Strategy):
    """Calls back into the test."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(name="mine")
        self.call = call

    def on_candle(self, context: Context) -> Signal:
        return self.call()  # type: ignore[no-any-return]


def last(values: np.ndarray, cell: float) -> np.ndarray:
    changed = values.copy()
    changed[-1] = cell
    return changed


def test_last_cells_become_the_signal() -> None:
    answer = Signals(last(FLAT, -1), last(ZEROS, 0.75), last(ZEROS, -0.5), last(ZEROS, 101.0), last(ZEROS, 99.0))
    assert evaluate(Answering(answer), BARS) == Signal(action=-1, strength=0.75, edge=-0.5, stop=101.0, target=99.0)


def test_nan_means_not_stated() -> None:
    answer = Signals(last(FLAT, 1), ZEROS, last(ZEROS, np.nan), last(ZEROS, np.nan), last(ZEROS, np.nan))
    assert evaluate(Answering(answer), BARS) == Signal(action=1, strength=0.0)


def test_flat_states_no_levels() -> None:
    answer = Signals(FLAT, ZEROS, None, last(ZEROS, 5.0), last(ZEROS, 6.0))
    assert evaluate(Answering(answer), BARS) == Signal(action=0, strength=0.0)


def test_earlier_cells_are_not_looked_at() -> None:
    strength = np.full(40, np.nan)
    assert evaluate(Answering(Signals(last(FLAT, 1), last(strength, 1.0))), BARS).strength == 1.0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "expected Signals from signals\\(\\), found NoneType None"),
        ((FLAT, ZEROS), "expected Signals from signals\\(\\), found tuple"),
        (Signal(action=0), "expected Signals from signals\\(\\), found Signal"),
        (Signals(FLAT[1:], ZEROS), "action as int8 array of shape \\(40,\\), found int8 array of shape \\(39,\\)"),
        (Signals(FLAT, ZEROS[1:]), "strength as float64 array of shape \\(40,\\), found float64 .*\\(39,\\)"),
        (Signals(FLAT.reshape(40, 1), ZEROS), "action as int8 .* found int8 array of shape \\(40, 1\\)"),
        (Signals(ZEROS, ZEROS), "action as int8 array of shape \\(40,\\), found float64 array"),  # type: ignore[arg-type]
        (Signals(FLAT, ZEROS.astype(np.float32)), "strength as float64 .* found float32"),
        (Signals(FLAT, 0.5), "strength as float64 .* found float 0.5"),  # type: ignore[arg-type]
        (Signals(last(FLAT, 2), ZEROS), "action to be -1, 0 or 1, found 2"),
        (Signals(FLAT, last(ZEROS, np.nan)), "strength to be 0 to 1, found nan"),
        (Signals(FLAT, last(ZEROS, np.inf)), "strength to be 0 to 1, found inf"),
        (Signals(FLAT, last(ZEROS, 1.0000001)), "strength to be 0 to 1, found 1.0000001"),
        (Signals(FLAT, last(ZEROS, -0.1)), "strength to be 0 to 1, found -0.1"),
        (Signals(FLAT, ZEROS, ZEROS[1:]), "edge as float64 array of shape \\(40,\\)"),
        (Signals(FLAT, ZEROS, last(ZEROS, np.inf)), "edge to be a finite number, or NaN for none, found inf"),
        (Signals(FLAT, ZEROS, last(ZEROS, -np.inf)), "edge to be a finite number, or NaN for none, found -inf"),
        (Signals(FLAT, ZEROS, None, ZEROS), "stop to be a finite price above 0, or NaN for none, found 0.0"),
        (Signals(FLAT, ZEROS, None, None, last(ZEROS, -1.0)), "target to be a finite price above 0.* found -1.0"),
    ],
)
def test_wrong_answers_name_strategy_candle_and_expectation(answer: Any, words: str) -> None:
    with pytest.raises(InvalidSignalError, match=CANDLE + ".*" + words):
        evaluate(Answering(answer), BARS)


def test_per_candle_form_sees_the_last_candle() -> None:
    signal = evaluate(PerCandle(), BARS)
    average = sum(BARS.close[-10:].tolist()) / 10
    assert signal == Signal(action=1 if BARS.close[-1] > average else -1, strength=0.5, extras={"index": 39})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: None, "expected a Signal from on_candle\\(\\), found NoneType None"),
        (lambda: Signal(action=5), "expected a valid Signal, found action 5: "),
        (lambda: Signal(action=1, strength=float("nan")), "a valid Signal, found strength nan: "),
        (lambda: Signal(action=1, stop=-1.0), "a valid Signal, found stop -1.0: "),
        (lambda: Signal.model_construct(action=7), "action to be -1, 0 or 1, found 7"),  # type: ignore[arg-type]
        (lambda: Signal.model_construct(action=1, strength=2.0), "strength to be 0 to 1, found 2.0"),
    ],
)
def test_wrong_single_answers_are_refused_the_same_way(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidSignalError, match=CANDLE + ".*" + words):
        evaluate(Calling(call), BARS)


def test_what_user_code_raises_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        evaluate(Calling(lambda: 1 / 0), BARS)
    with pytest.raises(ValidationError):
        evaluate(Calling(lambda: Strategy.Params(period=3)), BARS)  # type: ignore[call-arg]


@pytest.mark.parametrize(("candles", "missing"), [(9, 1), (1, 9), (0, 10)])
def test_too_short_a_window_says_how_much_is_missing(candles: int, missing: int) -> None:
    signal = evaluate(PerCandle(), BARS.first(candles))
    assert signal == Signal(action=0, strength=0.0, extras={"warmup": missing})


def test_exactly_the_warmup_is_enough() -> None:
    assert evaluate(PerCandle(), BARS.first(10)).action != 0


def test_cache_of_other_bars_is_refused() -> None:
    with pytest.raises(ValueError, match="indicator cache of these very bars"):
        evaluate(PerCandle(), BARS, IndicatorCache(random_walk(40)))


def test_indicators_cannot_be_changed_by_a_strategy() -> None:
    class Vandal(Strategy):
        rsi = Indicator.rsi(14)

        def signals(self, bars: Bars, indicators: Lines) -> Signals:
            indicators["rsi"][:] = 0.0
            return Signals(np.zeros(len(bars), np.int8), np.zeros(len(bars)))

    with pytest.raises(ValueError, match="read-only"):
        evaluate(Vandal(), random_walk(100))


def test_extras_of_the_last_candle_are_kept() -> None:
    answer = Signals(FLAT, ZEROS, extras={"why": "flat", "level": 1.5})
    assert evaluate(Answering(answer), BARS) == Signal(action=0, strength=0.0, extras={"why": "flat", "level": 1.5})


@pytest.mark.parametrize("extras", [{"why": object()}, {"why": "\x00"}, {1: 2}, "text"])
def test_extras_that_cannot_be_kept_are_refused(extras: Any) -> None:
    with pytest.raises(InvalidSignalError, match=CANDLE + "expected "):
        evaluate(Answering(Signals(FLAT, ZEROS, extras=extras)), BARS)


class LooksUp(Strategy):
    """Looks something up in a table of its own, or among its indicators."""

    rsi = Indicator.rsi(14)

    def __init__(self, key: object) -> None:
        super().__init__(name="mine")
        self.key = key

    def on_candle(self, context: Context) -> Signal:
        table: dict[object, float] = {}
        return Signal(action=1, strength=table[self.key])


def test_name_that_is_no_declared_indicator_says_which_are() -> None:
    with pytest.raises(UnknownIndicatorError) as error:
        evaluate(LooksUp("rsii"), random_walk(100))
    assert "expected a declared indicator, found 'rsii': did you mean 'rsi'? allowed: rsi" in str(error.value)
    assert isinstance(error.value.__cause__, KeyError)


@pytest.mark.parametrize("key", [7, "rsi"])
def test_key_that_cannot_be_meant_as_an_indicator_goes_through(key: object) -> None:
    with pytest.raises(KeyError, match=repr(key)):
        evaluate(LooksUp(key), random_walk(100))
