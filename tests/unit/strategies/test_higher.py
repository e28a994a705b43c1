"""Higher timeframes: what is made of a window's candles, where it stands in it, and how much of it a strategy needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.candles import Timeframe
from app.errors import ConfigurationError, TimeframeError
from app.gate.markets import LIVELY, generate_markets, on_timeframe
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.higher import build_higher
from app.strategies.indicators import IndicatorCache
from app.strategies.sdk import Context, Indicator, Signal, Strategy
from app.strategies.verification.prefix import check_prefix
from app.strategies.verification.probe import CheckFailedError, Probe
from app.strategies.verification.report import Reason
from app.strategies.verification.warmup import check_warmup
from tests.quant import higher as slow
from tests.quant import wrong
from tests.unit.strategies.market import HOUR_MS, random_walk

H4_MS = 4 * HOUR_MS


def walk(count: int, first_hour: int = 0) -> Bars:
    bars = random_walk(count)
    return replace(bars, open_time=bars.open_time + first_hour * HOUR_MS)


def without(bars: Bars, *missing: int) -> Bars:
    kept = np.setdiff1d(np.arange(len(bars)), missing)
    columns = (getattr(bars, name)[kept] for name in ("open_time", "open", "high", "low", "close", "volume"))
    return Bars(bars.symbol, bars.timeframe, *columns)


def newest_closed(bars: Bars, index: int, field: str, span_ms: int = H4_MS) -> float:
    """Return a field of the newest closed higher candle at a candle, worked out candle by candle."""
    now, buckets = int(bars.open_time[index]) + HOUR_MS, bars.open_time // span_ms
    for bucket in np.unique(buckets)[::-1]:
        inside = np.flatnonzero(buckets == bucket)
        begins_here = int(bars.open_time[inside[0]]) == bucket * span_ms or inside[0] > 0
        if (bucket + 1) * span_ms <= now and begins_here:
            values = getattr(bars, field)[inside]
            of = {"open": values[0], "high": values.max(), "low": values.min(), "close": values[-1]}
            return float(of.get(field, values.sum()))
    return float("nan")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 3), st.sets(st.integers(1, 58), max_size=25))
def test_each_candle_sees_the_newest_higher_candle_that_has_closed(count: int, hour: int, missing: set[int]) -> None:
    bars = without(walk(count, hour), *(gap for gap in missing if gap < count - 1))
    cache = IndicatorCache(bars)
    for field in ("open", "high", "low", "close", "volume"):
        found = cache[Indicator.candle(line=field).on("4h")]
        expected = [newest_closed(bars, index, field) for index in range(len(bars))]
        assert found == pytest.approx(expected, nan_ok=True, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 80), st.integers(0, 3), st.sets(st.integers(1, 78), max_size=20))
def test_later_candles_change_no_cell(count: int, hour: int, missing: set[int]) -> None:
    bars = without(walk(count, hour), *(gap for gap in missing if gap < count - 1))
    indicator = Indicator.ema(3).on("4h")
    whole = IndicatorCache(bars)[indicator]
    for end in range(1, len(bars)):
        assert IndicatorCache(bars.first(end))[indicator].tobytes() == whole[:end].tobytes()


def test_incomplete_candles_at_both_ends_do_not_count() -> None:
    higher = build_higher(walk(14, first_hour=2), Timeframe.H4)  # 02:00 to 15:00
    assert (higher.bars.open_time // HOUR_MS).tolist() == [4, 8, 12]
    assert higher.closed.tolist() == [0] * 5 + [1] * 4 + [2] * 4 + [3]
    assert higher.bars.timeframe is Timeframe.H4
    assert not higher.bars.close.flags.writeable


def test_candle_whose_last_part_is_missing_closes_with_the_next_one() -> None:
    higher = build_higher(without(walk(9), 3), Timeframe.H4)  # 03:00 is missing
    assert higher.closed.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert higher.bars.close[0] == walk(9).close[2]


def test_gap_of_whole_candles_leaves_none() -> None:
    higher = build_higher(without(walk(17), *range(4, 12)), Timeframe.H4)
    assert (higher.bars.open_time // HOUR_MS).tolist() == [0, 12]


def test_weeks_begin_on_monday() -> None:
    monday = 4 * 24  # 1970-01-05
    higher = build_higher(walk(8 * 24, first_hour=monday - 5), Timeframe.W1)
    assert (higher.bars.open_time // HOUR_MS).tolist() == [monday]


def test_line_is_that_of_the_higher_candles() -> None:
    bars = walk(400)
    made = IndicatorCache(bars)[Indicator.ema(5).on("4h")]
    expected = talib.EMA(bars.close[3::4].copy(), 5)
    assert made[3::4].tobytes() == expected.tobytes()
    assert np.isnan(made[: 4 * 5 - 1]).all() and not np.isnan(made[4 * 5 - 1 :]).any()


def test_window_without_a_closed_candle_has_no_values() -> None:
    assert np.isnan(IndicatorCache(walk(3))[Indicator.rsi(14).on("4h")]).all()


def test_higher_candles_are_made_once_for_all_strategies_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Timeframe] = []

    def making(bars: Bars, timeframe: Timeframe) -> Any:
        made.append(timeframe)
        return build_higher(bars, timeframe)

    monkeypatch.setattr("app.strategies.indicators.build_higher", making)
    bars = walk(300)
    cache = IndicatorCache(bars)
    for strategy in (slow.FollowsHigher(), Trend(), slow.FollowsHigher(), wrong.Follows()):
        evaluate(strategy, bars, cache)
    assert sorted(made) == [Timeframe.D1, Timeframe.H4]


def test_lines_of_both_timeframes_are_apart_and_computed_once() -> None:
    cache = IndicatorCache(walk(100))
    assert cache[Indicator.ema(3)].tobytes() != cache[Indicator.ema(3).on("4h")].tobytes()
    assert cache[Indicator.ema(3).on("4h")] is cache[Indicator.ema(3).on("4h")]
    with pytest.raises(ValueError, match="read-only"):
        cache[Indicator.ema(3).on("4h")][0] = 1.0


@pytest.mark.parametrize("timeframe", ["5h", "1m", "", "H4"])
def test_timeframe_that_is_none_is_refused_where_it_is_declared(timeframe: str) -> None:
    with pytest.raises(ConfigurationError, match=f"indicator ema: unknown higher timeframe '{timeframe}'"):
        Indicator.ema(5).on(timeframe)


class Trend(Strategy):
    """Tells the value of its higher line."""

    trend = Indicator.sma(3).on("4h")

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, strength=0.5, extras={"trend": context.value("trend")})


def test_warm_up_follows_from_the_timeframe_of_the_candles() -> None:
    warmups = Trend().warmups
    assert {frame.value: warmups.get(frame) for frame in (Timeframe.M1, Timeframe.M5, Timeframe.H1, Timeframe.H4)} == {
        "1m": 4 * 240 - 1,
        "5m": 4 * 48 - 1,
        "1h": 15,
        "4h": None,
    }
    assert set(warmups) == {Timeframe(each) for each in ("1m", "3m", "5m", "15m", "30m", "1h", "2h")}
    assert wrong.Follows().warmups == dict.fromkeys(Timeframe, wrong.Follows().warmup)


@pytest.mark.parametrize("first_hour", range(4))
def test_warm_up_is_enough_and_no_less_at_some_hour(first_hour: int) -> None:
    strategy, bars = Trend(), walk(15, first_hour)
    extras = evaluate(strategy, bars).extras or {}
    assert np.isfinite(extras["trend"])  # type: ignore[arg-type]
    assert evaluate(strategy, bars.first(14)).extras == {"warmup": 1}
    too_short = IndicatorCache(walk(14, first_hour=1))[Trend.trend]
    assert np.isnan(too_short[-1])


def test_timeframe_that_does_not_fit_says_what_does() -> None:
    bars = replace(walk(2000), timeframe=Timeframe.H8)
    with pytest.raises(TimeframeError) as error:
        evaluate(Trend(name="mine"), bars)
    assert str(error.value) == (
        "strategy 'mine' on BTC-USDT 8h candle opened 1970-03-25T07:00:00+00:00: indicator sma on 4h: expected candles "
        "of a lower timeframe that divides it (1m, 3m, 5m, 15m, 30m, 1h, 2h), found 8h"
    )


def test_gate_lets_a_right_strategy_pass() -> None:
    probe, markets = Probe(slow.FollowsHigher, 512), [bars.first(700) for bars in generate_markets()]
    check_prefix(probe, markets, 100_000)
    check_warmup(probe, markets[:LIVELY], 200)


def test_gate_works_on_the_timeframe_that_is_subscribed_to() -> None:
    class Hourly(slow.FollowsHigher):
        trend, day = Indicator.ema(5).on("1h"), Indicator.candle().on("1h")

    markets = [bars.first(700) for bars in on_timeframe(generate_markets(), Timeframe.M15)]
    check_prefix(Probe(Hourly, 512), markets, 100_000)
    check_warmup(Probe(Hourly, 512), markets[:LIVELY], 200)


def test_gate_finds_a_look_into_the_higher_candle() -> None:
    with pytest.raises(CheckFailedError) as failed:
        check_prefix(Probe(slow.PeeksIntoTheHigherCandle, 512), [random_walk(900)], 100_000)
    finding = failed.value.finding
    assert finding.reason is Reason.CENTRED
    assert "3 candles ahead" in finding.found


def test_gate_finds_a_warm_up_that_forgets_the_higher_timeframe() -> None:
    with pytest.raises(CheckFailedError) as failed:
        check_warmup(Probe(slow.WarmsUpTooShortlyForTheHigher, 512), generate_markets()[:LIVELY], 400)
    assert failed.value.finding.reason is Reason.SHORT
