from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app.domain.candles import Timeframe
from app.strategies.bars import Bars
from app.strategies.freqtrade.frame import build_frame, grid, resample
from tests.unit.strategies.market import HOUR_MS, random_walk


def picked(bars: Bars, rows: list[int]) -> Bars:
    columns = (getattr(bars, name)[rows] for name in ("open", "high", "low", "close", "volume"))
    return Bars(bars.symbol, bars.timeframe, bars.open_time[rows], *columns)


def shifted(bars: Bars, hours: int) -> Bars:
    columns = (getattr(bars, name) for name in ("open", "high", "low", "close", "volume"))
    return Bars(bars.symbol, bars.timeframe, bars.open_time + hours * HOUR_MS, *columns)


def test_a_frame_is_what_strategies_expect() -> None:
    bars = random_walk(5)
    frame = build_frame(bars)
    assert list(frame.columns) == ["date", "open", "high", "low", "close", "volume"]
    assert str(frame["date"].dtype) == "datetime64[ms, UTC]"
    assert [str(kind) for kind in frame.dtypes[1:]] == ["float64"] * 5
    assert isinstance(frame.index, pd.RangeIndex)
    assert frame["date"].iloc[1] == pd.Timestamp("1970-01-01 01:00", tz="UTC")
    for name in ("open", "high", "low", "close", "volume"):
        assert np.array_equal(frame[name], getattr(bars, name)), name


def test_gaps_are_flat_silent_candles_at_the_close_before() -> None:
    bars = random_walk(10)
    frame = build_frame(picked(bars, [0, 1, 4, 5, 9]))
    assert len(frame) == 10
    for row, before in {2: 1, 3: 1, 6: 5, 7: 5, 8: 5}.items():
        assert list(frame.loc[row, ["open", "high", "low", "close"]]) == [bars.close[before]] * 4
        assert frame.loc[row, "volume"] == 0.0
    assert frame.loc[4, "open"] == bars.open[4]
    times, places = grid(picked(bars, [0, 1, 4, 5, 9]))
    assert (len(times), list(places)) == (10, [0, 1, 4, 5, 9])


def test_a_frame_shares_nothing_with_the_bars() -> None:
    bars = random_walk(5)
    before = bars.close.copy()
    frame = build_frame(bars)
    frame.loc[:, "close"] = 0.0
    assert np.array_equal(bars.close, before)


@pytest.mark.parametrize("rows", [[0, 2, 1], [0, 1, 1]])
def test_candles_out_of_order_are_refused(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending order on the 1h grid"):
        build_frame(picked(random_walk(5), rows))


def test_slower_candles_are_made_of_whole_ones_only() -> None:
    bars = shifted(random_walk(23), 3)  # from 03:00 on: the first four-hour candle is not whole, nor is the last
    slow = resample(build_frame(bars), "1h", "4h")
    assert [f"{date:%d %H:%M}" for date in slow["date"]] == [f"01 {hour:02}:00" for hour in range(4, 24, 4)]
    for row in range(5):
        part = slice(1 + 4 * row, 5 + 4 * row)
        assert slow.loc[row, "open"] == bars.open[part][0]
        assert slow.loc[row, "high"] == bars.high[part].max()
        assert slow.loc[row, "low"] == bars.low[part].min()
        assert slow.loc[row, "close"] == bars.close[part][-1]
        assert slow.loc[row, "volume"] == pytest.approx(bars.volume[part].sum())


def test_weeks_open_on_mondays() -> None:
    bars = random_walk(24 * 20)
    slow = resample(build_frame(bars), "1h", "1w")
    assert [f"{date:%a %d}" for date in slow["date"]] == ["Mon 05", "Mon 12"]


def test_a_timeframe_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a multiple of 1h, found 30m"):
        resample(build_frame(random_walk(5)), "1h", "30m")
    same = resample(build_frame(random_walk(5)), Timeframe.H1.value, "1h")
    assert len(same) == 5
