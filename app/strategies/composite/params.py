"""What a composite is made of, as a definition file names it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from app.domain.candles import Timeframe
from app.strategies.sdk import Strategy

Threshold = Annotated[float, Field(gt=0, le=1)]
Remainder = Annotated[float, Field(ge=0, lt=1)]
Period = Annotated[int, Field(ge=2, le=1000)]
Percent = Annotated[float, Field(ge=0, le=1000)]

#: What names an analyzer: a bare key of TOML.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class Analyzer(Strategy.Params):
    """A strategy whose view counts."""

    implementation: str
    """Built-in, entry point or module:Class; no composite."""
    params: dict[str, JsonValue] = Field(default_factory=dict)
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0


class Entry(Strategy.Params):
    """When a side is taken: the score is at least so far on it, and so many analyzers say the same."""

    long: Threshold = 0.5
    short: Threshold = 0.5
    agree: Annotated[int, Field(ge=1)] = 1


class Exit(Strategy.Params):
    """When a side is left: the score is at most so far on it."""

    long: Remainder = 0.2
    short: Remainder = 0.2


class Volatility(Strategy.Params):
    """ATR in percent of the close, within a band."""

    period: Period = 14
    least_percent: Percent = 0.0
    most_percent: Percent = 1000.0

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.least_percent >= self.most_percent:
            raise ValueError(
                f"least_percent must be below most_percent, found {self.least_percent} and {self.most_percent}"
            )
        return self


class Volume(Strategy.Params):
    """Volume of the candle, at least a share of the mean of `period` candles."""

    period: Period = 20
    least_percent: Percent = 100.0


class Session(Strategy.Params):
    """Hours of the day, UTC, at which a candle closes: from the first, before the last; over midnight if that is less.

    A candle that closes at 00:00, as every daily one does, closes at hour 0.
    """

    from_hour: Annotated[int, Field(ge=0, le=23)]
    to_hour: Annotated[int, Field(ge=0, le=24)]

    @model_validator(mode="after")
    def _check_hours(self) -> Self:
        if self.from_hour == self.to_hour:
            raise ValueError(f"from_hour and to_hour must differ, found {self.from_hour} twice")
        return self


class Filters(Strategy.Params):
    """What must hold where a side is taken; one that is left out is not computed."""

    volatility: Volatility | None = None
    volume: Volume | None = None
    session: Session | None = None


class Gate(Strategy.Params):
    """The trend of a higher timeframe, which a side that is taken must agree with: close above or below its EMA."""

    timeframe: Timeframe
    period: Period = 50


class CompositeParams(Strategy.Params):
    """A whole composite."""

    analyzers: Annotated[dict[Name, Analyzer], Field(min_length=1, max_length=32)]
    sides: Literal["both", "long", "short"] = "both"
    entry: Entry = Entry()
    exit: Exit = Exit()
    hold: Annotated[int, Field(ge=0, le=1000)] = 24
    """Candles for which a side is held at most after the newest one that met the entry rule."""
    filters: Filters = Filters()
    gate: Gate | None = None

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for side in ("long", "short"):
            taken, left = getattr(self.entry, side), getattr(self.exit, side)
            if left >= taken:
                raise ValueError(f"exit.{side} must be below entry.{side}, found {left} and {taken}")
        if self.entry.agree > len(self.analyzers):
            raise ValueError(
                f"entry.agree must not exceed the {len(self.analyzers)} analyzers, found {self.entry.agree}"
            )
        return self
