"""Ours against sums by hand, and against the real one of the package `technical`, bit for bit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from technical.vendor.qtpylib import indicators as real

from app.strategies.bars import Bars
from app.strategies.freqtrade import qtpylib
from app.strategies.freqtrade.frame import build_frame
from tests.unit.strategies.market import build_bars, random_walk

WALK = build_frame(random_walk(300))
FLAT = build_frame(build_bars(np.full(60, 2.0), volume=np.zeros(60)))
SHORT = build_frame(random_walk(9))
SERIES = ("rolling_mean", "rolling_std", "rolling_min", "rolling_max", "rolling_weighted_mean", "sma", "wma")
SERIES_DEFAULT = ("bollinger_bands", "weighted_bollinger_bands", "macd", "roc", "returns", "log_returns")
FRAMES: tuple[str, ...] = (
    "typical_price",
    "mid_price",
    "heikinashi",
    "awesome_oscillator",
    "true_range",
    "atr",
    "rolling_vwap",
)
FAILING_WHEN_SHORT = ("awesome_oscillator", "zscore")
FRAMES += FAILING_WHEN_SHORT


def same(ours: Any, theirs: Any) -> bool:
    return np.array_equal(np.asarray(ours, float), np.asarray(theirs, float), equal_nan=True)


@pytest.mark.parametrize("frame", [WALK, FLAT, SHORT], ids=["walk", "flat", "short"])
@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("options", [{"window": 14}, {"window": 14, "min_periods": 1}, {"window": 9}])
def test_series_are_bit_equal_to_the_real_ones(frame: pd.DataFrame, name: str, options: dict[str, int]) -> None:
    assert same(getattr(qtpylib, name)(frame["close"], **options), getattr(real, name)(frame["close"], **options))


@pytest.mark.parametrize("frame", [WALK, FLAT, SHORT], ids=["walk", "flat", "short"])
@pytest.mark.parametrize("name", SERIES_DEFAULT + FRAMES)
def test_defaults_are_bit_equal_to_the_real_ones(frame: pd.DataFrame, name: str) -> None:
    given = frame["close"] if name in SERIES_DEFAULT else frame
    if frame is SHORT and name in FAILING_WHEN_SHORT:
        assert np.isnan(getattr(qtpylib, name)(given)).all(), "the real one raises"
        return
    ours = getattr(qtpylib, name)(given)
    with warnings.catch_warnings(action="ignore"):  # of the real one: deprecated ways of pandas
        theirs = getattr(real, name)(given)
    assert same(ours, theirs)
    if isinstance(theirs, pd.DataFrame):
        assert list(ours.columns) == list(theirs.columns)


@pytest.mark.parametrize("name", ["crossed", "crossed_above", "crossed_below"])
@pytest.mark.parametrize("level", [78.5, 80, WALK["open"].rolling(5).mean()], ids=["float", "int", "series"])
def test_crossings_are_equal_to_the_real_ones(name: str, level: Any) -> None:
    ours = getattr(qtpylib, name)(WALK["close"], level)
    assert ours.dtype == bool
    assert ours.any()
    assert same(ours, getattr(real, name)(WALK["close"], level))


def test_options_are_bit_equal_to_the_real_ones() -> None:
    assert same(qtpylib.awesome_oscillator(WALK, weighted=True), real.awesome_oscillator(WALK, weighted=True))
    assert same(qtpylib.atr(WALK, 10, exp=True), real.atr(WALK, 10, exp=True))
    assert same(qtpylib.stoch(WALK, fast=True), real.stoch(WALK, fast=True))
    assert same(qtpylib.bollinger_bands(WALK["close"], 30, 1.5), real.bollinger_bands(WALK["close"], 30, 1.5))


def test_crossing_by_hand() -> None:
    first = pd.Series([1.0, 2.0, 3.0, 3.0, 2.0, 2.0, 1.0, np.nan, 3.0])
    assert list(np.flatnonzero(qtpylib.crossed_above(first, 2))) == [2]
    assert list(np.flatnonzero(qtpylib.crossed_below(first, 2))) == [6]
    assert list(np.flatnonzero(qtpylib.crossed(first, 2))) == [2, 6]
    assert list(np.flatnonzero(qtpylib.crossed_above(first.to_numpy(), 2.0))) == [2]


def test_bands_by_hand() -> None:
    closes = WALK["close"].to_numpy()
    bands = qtpylib.bollinger_bands(WALK["close"], window=20, stds=2)
    for row in (1, 10, 19, 250):
        window = closes[max(0, row - 19) : row + 1]
        assert bands["mid"][row] == pytest.approx(window.mean())
        assert bands["upper"][row] == pytest.approx(window.mean() + 2 * window.std(ddof=1))
        assert bands["lower"][row] == pytest.approx(window.mean() - 2 * window.std(ddof=1))


def test_averaged_candles_by_hand() -> None:
    bars = random_walk(50)
    made = qtpylib.heikinashi(build_frame(bars))
    opened, closed = (bars.open[0] + bars.close[0]) / 2, _body(bars, 0)
    for row in range(1, 50):
        opened, closed = (opened + closed) / 2, _body(bars, row)
        assert made["open"][row] == pytest.approx(opened)
        assert made["close"][row] == pytest.approx(closed)
        assert made["high"][row] == pytest.approx(max(bars.high[row], opened, closed))
        assert made["low"][row] == pytest.approx(min(bars.low[row], opened, closed))


def _body(bars: Bars, row: int) -> float:
    return float((bars.open[row] + bars.high[row] + bars.low[row] + bars.close[row]) / 4)


def test_silent_candles_keep_the_volume_weighted_mean() -> None:
    volume = np.concatenate([np.ones(20), np.zeros(20), np.ones(20)])
    frame = build_frame(build_bars(random_walk(60).close, volume=volume))
    average = qtpylib.rolling_vwap(frame, 5)
    assert (average[24:40] == average[23]).all()
    assert average[41] != average[40] or average[40] != average[23]
    assert same(average, real.rolling_vwap(frame, 5))


def test_an_average_over_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"use qtpylib\.rolling_vwap"):
        qtpylib.vwap(WALK)
