from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from app.domain.candles import Candle, Timeframe
from app.strategies.bars import Bars
from app.strategies.builtin import BUILTINS
from app.strategies.sdk import (
    Context,
    Indicator,
    Lines,
    Signal,
    Signals,
    Strategy,
    in_ranges,
    signals_from_score,
)
from tests.unit.strategies.market import build_bars, random_walk


class Flat(Strategy):
    """The smallest vectorised strategy."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return Signals(np.zeros(len(bars), np.int8), np.zeros(len(bars)))


class Declared(Flat):
    """Declares as class attributes."""

    rsi = Indicator.rsi(14)
    slow = Indicator.ema(20)
    reach = 2


def test_bars_are_read_only_and_shared() -> None:
    close = np.arange(1.0, 6.0)
    bars = Bars("X", Timeframe.H1, np.arange(5), close, close, close, close, close)
    for name in ("open", "high", "low", "close", "volume", "open_time"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(bars, name)[0] = 9
    assert np.shares_memory(bars.close, close)
    assert close.flags.writeable, "the owner's array is left as it was"


def test_bars_are_made_contiguous_float64() -> None:
    table = np.arange(1, 31, dtype=np.float32).reshape(5, 6)
    bars = Bars("X", Timeframe.H1, table[:, 0].astype(np.int32), *table[:, 1:].T)
    assert bars.close.dtype == np.float64 and bars.close.flags.c_contiguous
    assert bars.open_time.dtype == np.int64
    assert bars.close.tolist() == [5.0, 11.0, 17.0, 23.0, 29.0]


@pytest.mark.parametrize("wrong", [np.ones(4), np.ones((5, 1)), np.float64(1.0)])
def test_bars_of_uneven_shape_are_refused(wrong: np.ndarray) -> None:
    good = np.ones(5)
    with pytest.raises(ValueError, match=r"expected high of shape \(5,\) like open_time"):
        Bars("X", Timeframe.H1, np.arange(5), good, wrong, good, good, good)


def test_bars_are_frozen() -> None:
    with pytest.raises(AttributeError):
        random_walk(5).symbol = "Y"  # type: ignore[misc]


def test_bars_from_candles() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    candles = [
        Candle(
            symbol="BTC-USDT",
            timeframe=Timeframe.H1,
            open_time=start + timedelta(hours=i),
            open=10.0 + i,
            high=20.0 + i,
            low=5.0 + i,
            close=11.0 + i,
            volume=float(i),
        )
        for i in range(3)
    ]
    bars = Bars.from_candles(candles)
    assert (bars.symbol, bars.timeframe, len(bars)) == ("BTC-USDT", Timeframe.H1, 3)
    assert bars.open_time.tolist() == [1704067200000, 1704070800000, 1704074400000]
    assert bars.low.tolist() == [5.0, 6.0, 7.0]
    assert bars.volume.tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="at least one candle"):
        Bars.from_candles([])


@pytest.mark.parametrize(("count", "first", "last"), [(0, [], []), (2, [1, 2], [4, 5])])
def test_parts_of_bars(count: int, first: list[float], last: list[float]) -> None:
    bars = build_bars([1.0, 2.0, 3.0, 4.0, 5.0])
    assert bars.first(count).close.tolist() == first
    assert bars.last(count).close.tolist() == last


def test_part_longer_than_the_bars_is_all_of_them() -> None:
    bars = random_walk(5)
    assert len(bars.first(9)) == len(bars.last(9)) == 5


def test_class_attributes_declare_indicators() -> None:
    strategy = Declared()
    assert dict(strategy.declared) == {"rsi": Indicator.rsi(14), "slow": Indicator.ema(20)}


def test_warmup_is_the_slowest_indicator_plus_reach() -> None:
    assert Declared().warmup == Indicator.rsi(14).settled + 2
    assert Flat().warmup == 1


def test_subclass_inherits_and_overrides_indicators() -> None:
    class Narrower(Declared):
        rsi = Indicator.rsi(7)

    assert dict(Narrower().declared) == {"rsi": Indicator.rsi(7), "slow": Indicator.ema(20)}


def test_neither_form_is_refused() -> None:
    with pytest.raises(TypeError, match=r"strategy Mute: expected exactly one of .*, found neither"):

        class Mute(Strategy):
            pass


def test_both_forms_are_refused() -> None:
    with pytest.raises(TypeError, match=r"strategy Twice: expected exactly one of .*, found both"):

        class Twice(Flat):
            def on_candle(self, context: Context) -> Signal:
                return Signal(action=0)


def test_foreign_params_are_refused() -> None:
    with pytest.raises(TypeError, match=r"strategy Loose: expected Params to derive from Strategy.Params"):

        class Loose(Flat):
            class Params(BaseModel):
                period: int = 3


def test_params_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        BUILTINS["ema_cross"]().params.fast = 3  # type: ignore[attr-defined]


def test_name_defaults_to_the_class() -> None:
    assert Flat().name == "Flat"
    assert Flat(name="mine").name == "mine"


def test_context_reads_back() -> None:
    bars = build_bars([1.0, 2.0, 3.0])
    context = Context(bars, {"a": np.array([7.0, 8.0, 9.0])}, 2)
    assert context.close == 3.0
    assert (context.value("a"), context.value("a", 2)) == (9.0, 7.0)
    for ago in (-1, 3):
        with pytest.raises(IndexError, match=f"expected ago of 0 to 2, found {ago}"):
            context.value("a", ago)


def test_score_becomes_signals() -> None:
    score = np.array([np.nan, 0.0, 1e-7, 0.5, -0.25, 3.0, -3.0])
    signals = signals_from_score(score, np.full(7, 2.0), np.full(7, 100.0))
    assert signals.action.dtype == np.int8
    assert signals.action.tolist() == [0, 0, 0, 1, -1, 1, -1]
    assert signals.strength.tolist() == [0.0, 0.0, 0.0, 0.5, 0.25, 1.0, 1.0]
    assert signals.edge is not None
    assert signals.edge.tolist() == [0.0, 0.0, 0.0, 1.0, 0.5, 2.0, 2.0]


def test_no_range_is_not_a_divisor() -> None:
    found = in_ranges(np.array([0.0, 1e-14, 2.0]), np.array([0.0, 0.0, 4.0]), np.array([100.0, 100.0, 100.0]))
    assert found == pytest.approx([0.0, 1e-7, 0.5])
