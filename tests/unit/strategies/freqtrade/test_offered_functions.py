"""Times and stop distances that strategy files import: what freqtrade 2026.9 answers to the same questions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.errors import ConfigurationError
from app.strategies.freqtrade import timeframes
from app.strategies.freqtrade.stoplosses import stoploss_from_absolute, stoploss_from_open

MOMENT = datetime(2024, 1, 3, 13, 7, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("timeframe", "seconds", "opened", "after"),
    [
        ("1m", 60, datetime(2024, 1, 3, 13, 7, tzinfo=UTC), datetime(2024, 1, 3, 13, 8, tzinfo=UTC)),
        ("5m", 300, datetime(2024, 1, 3, 13, 5, tzinfo=UTC), datetime(2024, 1, 3, 13, 10, tzinfo=UTC)),
        ("4h", 14_400, datetime(2024, 1, 3, 12, tzinfo=UTC), datetime(2024, 1, 3, 16, tzinfo=UTC)),
        ("1d", 86_400, datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)),
        ("3d", 259_200, datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC)),
        ("1w", 604_800, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 8, tzinfo=UTC)),
        ("1M", 2_592_000, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)),
    ],
)
def test_timeframes(timeframe: str, seconds: int, opened: datetime, after: datetime) -> None:
    assert timeframes.timeframe_to_seconds(timeframe) == seconds
    assert timeframes.timeframe_to_minutes(timeframe) == seconds // 60
    assert timeframes.timeframe_to_msecs(timeframe) == seconds * 1000
    assert timeframes.timeframe_to_prev_date(timeframe, MOMENT) == opened
    assert timeframes.timeframe_to_next_date(timeframe, MOMENT) == after


def test_candles_back() -> None:
    assert timeframes.date_minus_candles("5m", 3, MOMENT) == datetime(2024, 1, 3, 12, 50, tzinfo=UTC)


def test_without_a_date_it_is_now() -> None:
    opened = timeframes.timeframe_to_prev_date("1d")
    assert opened <= datetime.now(UTC) and (opened.hour, opened.minute) == (0, 0)


@pytest.mark.parametrize("wrong", ["", "5", "m", "0m", "5 m", "5x", "5m\n", None])
def test_what_is_no_timeframe_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a timeframe such as 5m"):
        timeframes.timeframe_to_seconds(wrong)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ((0.05, 0.1), 0.045454545454545525),
        ((-0.05, 0.1), 0.13636363636363646),
        ((0.05, -1), 1),
        ((0.05, 0.01), 0.0),
        ((0.1, 0.05, True), 0.0),
        ((0.05, 0.1, True), 0.05555555555555558),
        ((0.05, 0.1, False, 2), 0.047619047619047894),
        ((-0.1, 0), 0.09999999999999998),
        ((0.05, 0.1, True, 3), 0.05172413793103425),
        ((0.05, 1.2, True), 0.0),
    ],
)
def test_stop_from_the_entry(asked: Any, answer: float) -> None:
    assert stoploss_from_open(*asked) == pytest.approx(answer)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ((90, 100), 0.1),
        ((110, 100), 0.0),
        ((110, 100, True), 0.1),
        ((90, 100, True), 0.0),
        ((90, 100, False, 3), 0.3),
        ((1, 0), 1),
    ],
)
def test_stop_from_a_price(asked: Any, answer: float) -> None:
    assert stoploss_from_absolute(*asked) == pytest.approx(answer)
