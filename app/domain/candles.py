"""Candle and Timeframe: one OHLCV bar and the grid it stands on. Knows nothing of feeds or storage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from app.domain.base import UtcDatetime, Value

#: BASE-QUOTE as a rule; no wildcard, space or quote, so that a symbol is safe in a pattern, a path and a label.
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The first Monday of the epoch: weekly candles open on Mondays 00:00 UTC, as Binance, Bybit and Kraken have it.
FIRST_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)


class Timeframe(StrEnum):
    """Length of a candle; the value is the exchanges' own notation."""

    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"
    D1 = "1d"
    W1 = "1w"

    @property
    def duration(self) -> timedelta:
        """Length of one candle."""
        return _DURATIONS[self]

    def floor(self, moment: datetime) -> datetime:
        """Return the open time of the candle that contains an aware moment."""
        anchor = _ANCHORS[self]
        return moment - (moment - anchor) % self.duration

    def made_of(self, faster: Timeframe) -> int:
        """Return how many candles of a faster timeframe make one of this; 0 where they make none, as 3m for 5m."""
        candles, rest = divmod(self.duration, faster.duration)
        return 0 if rest or candles < 2 else candles

    def is_on_grid(self, moment: datetime) -> bool:
        """Tell whether an aware moment is an open time of this timeframe."""
        return not (moment - _ANCHORS[self]) % _DURATIONS[self]


_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DURATIONS = {frame: int(frame.value[:-1]) * _UNITS[frame.value[-1]] for frame in Timeframe}
_ANCHORS = {frame: FIRST_MONDAY if frame is Timeframe.W1 else EPOCH for frame in Timeframe}

Price = Annotated[float, Field(gt=0, description="quote currency per unit of base")]


class Candle(Value):
    """One closed OHLCV bar of a symbol and a timeframe.

    Prices are floats in quote currency, volume in base units unless the source says otherwise.
    `revision` is 0 for the first version and one more for every correction.

    Raises:
        pydantic.ValidationError: not finite, price <= 0, volume < 0, high or low that do not contain
            open and close, open_time naive or off the timeframe's grid.
    """

    symbol: Symbol
    timeframe: Timeframe
    open_time: UtcDatetime
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Annotated[float, Field(ge=0)]
    revision: Annotated[int, Field(ge=0)] = 0

    @property
    def close_time(self) -> datetime:
        """The moment the candle is complete: open_time plus the timeframe's duration (exclusive end)."""
        return self.open_time + self.timeframe.duration

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.high < max(self.open, self.close):
            raise ValueError(f"high {self.high} is below max(open {self.open}, close {self.close})")
        if self.low > min(self.open, self.close):
            raise ValueError(f"low {self.low} is above min(open {self.open}, close {self.close})")
        if not self.timeframe.is_on_grid(self.open_time):
            raise ValueError(f"open_time {self.open_time.isoformat()} is not on the {self.timeframe} grid")
        return self
