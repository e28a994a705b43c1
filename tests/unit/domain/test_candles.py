from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.domain.candles import Candle, Timeframe

GOOD = {
    "symbol": "BTC-USDT",
    "timeframe": "1h",
    "open_time": datetime(2024, 1, 1, tzinfo=UTC),
    "open": 10.0,
    "high": 12.0,
    "low": 9.0,
    "close": 11.0,
    "volume": 0.0,
}


def test_a_good_candle_is_taken_and_cannot_be_changed():
    candle = Candle(**GOOD)
    assert candle.close_time == datetime(2024, 1, 1, 1, tzinfo=UTC)
    assert candle.revision == 0
    with pytest.raises(ValidationError):
        candle.close = 5.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"high": 10.9}, "below max"),
        ({"low": 10.1}, "above min"),
        ({"close": 0.0}, "greater than 0"),
        ({"open": -1.0}, "greater than 0"),
        ({"volume": -0.1}, "greater than or equal to 0"),
        ({"high": float("inf")}, "finite"),
        ({"close": float("nan")}, "finite"),
        ({"volume": float("nan")}, "finite"),
        ({"open_time": datetime(2024, 1, 1, 0, 30, tzinfo=UTC)}, "not on the 1h grid"),
        ({"open_time": datetime(2024, 1, 1)}, "timezone"),  # noqa: DTZ001 - naive on purpose
        ({"timeframe": "7m"}, "Input should be"),
        ({"symbol": "BTC *"}, "pattern"),
        ({"revision": -1}, "greater than or equal to 0"),
        ({"vwap": 1.0}, "Extra inputs"),
    ],
)
def test_a_bad_candle_is_refused_with_its_reason(change, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Candle(**{**GOOD, **change})


def test_times_are_normalised_to_utc():
    cairo = timezone(timedelta(hours=2))
    candle = Candle(**{**GOOD, "open_time": datetime(2024, 1, 1, 2, tzinfo=cairo)})
    assert candle.open_time == datetime(2024, 1, 1, tzinfo=UTC)
    assert candle.open_time.tzinfo is UTC


def test_weeks_open_on_mondays():
    monday, thursday = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)
    assert Timeframe.W1.is_on_grid(monday)
    assert not Timeframe.W1.is_on_grid(thursday)
    assert Timeframe.W1.floor(thursday) == monday


@given(
    st.sampled_from(list(Timeframe)),
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive
)
def test_every_moment_lies_in_exactly_the_candle_it_floors_to(frame, moment):
    opened = frame.floor(moment)
    assert frame.is_on_grid(opened)
    assert opened <= moment < opened + frame.duration
    assert frame.is_on_grid(moment) == (opened == moment)
