"""Lengths and grids of timeframes in the exchanges' notation. Knows nothing of pandas or strategies."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from app.domain.candles import EPOCH, FIRST_MONDAY
from app.errors import ConfigurationError

#: Seconds of a unit; a month counts as 30 days and a year as 365, as ccxt has it.
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 2_592_000, "y": 31_536_000}
_TIMEFRAME = re.compile(r"(\d{1,4})([smhdwMy])", re.ASCII)


def timeframe_to_seconds(timeframe: str) -> int:
    """Return the length of a timeframe such as ``5m``, seconds.

    Raises:
        ConfigurationError: not a timeframe.
    """
    match = _TIMEFRAME.fullmatch(timeframe) if isinstance(timeframe, str) else None
    if match is None or not int(match[1]):
        raise ConfigurationError(f"expected a timeframe such as 5m, 1h or 1d, found {timeframe!r}")
    return int(match[1]) * _SECONDS[match[2]]


def timeframe_to_minutes(timeframe: str) -> int:
    """Return the length of a timeframe, whole minutes."""
    return timeframe_to_seconds(timeframe) // 60


def timeframe_to_msecs(timeframe: str) -> int:
    """Return the length of a timeframe, milliseconds."""
    return timeframe_to_seconds(timeframe) * 1000


def timeframe_to_prev_date(timeframe: str, date: datetime | None = None) -> datetime:
    """Return the open time of the candle that contains a moment, by default the present one."""
    moment = date or datetime.now(UTC)
    if timeframe == "1M":
        return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    anchor = FIRST_MONDAY if timeframe.endswith("w") else EPOCH
    return moment - (moment - anchor) % timedelta(seconds=timeframe_to_seconds(timeframe))


def timeframe_to_next_date(timeframe: str, date: datetime | None = None) -> datetime:
    """Return the open time of the candle after the one that contains a moment, by default the present one."""
    opened = timeframe_to_prev_date(timeframe, date)
    if timeframe == "1M":
        return timeframe_to_prev_date(timeframe, opened + timedelta(days=31))
    return opened + timedelta(seconds=timeframe_to_seconds(timeframe))


def date_minus_candles(timeframe: str, candle_count: int, date: datetime | None = None) -> datetime:
    """Return the open time of the candle so many candles before the one that contains a moment."""
    return timeframe_to_prev_date(timeframe, date) - candle_count * timedelta(seconds=timeframe_to_seconds(timeframe))
