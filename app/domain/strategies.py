"""StrategyDefinition and its parts: what is registered about a strategy. Knows nothing of its code."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from app.domain.base import Value
from app.domain.candles import Timeframe

#: Lower-case words: it appears in task names, metric labels, logs and URLs.
StrategyName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,62}$")]

Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9*?][A-Za-z0-9._:/*?-]{0,63}$")]


class Priority(StrEnum):
    """Which queue a strategy's jobs travel on; the value is the queue's name."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class StrategyStatus(StrEnum):
    """Whether a strategy gets jobs: only an active one does.

    A quarantined one killed slots too often; a rejected one did not pass the gate.
    """

    ACTIVE = "active"
    PAUSED = "paused"
    UNLOADED = "unloaded"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"


class Limits(Value):
    """What one job of the strategy may take."""

    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 5000
    """Soft limit of one job in milliseconds, wall clock."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts after the first one failed."""
    memory_mb: Annotated[int, Field(ge=16, le=65_536)] = 512
    """Memory one job may use, MiB."""
    p95_ms: Annotated[int, Field(ge=1, le=600_000)] = 100
    """Time within which 95 of 100 jobs end, milliseconds; a strategy that takes longer is throttled."""
    cpu_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """Share of the fleet's slots that the strategy may ask for, percent; one that asks for more is throttled."""


class Trading(Value):
    """How a strategy's signals become positions; percentages of price unless they say otherwise.

    Not a part of the revision: it changes what is done with signals, not what they say. It holds from the next
    candle on, also for a position that is open.
    """

    enabled: bool = True
    """False keeps no positions, for one strategy of a file whose base section has this table."""
    capital: Annotated[float, Field(gt=0)] = 100_000.0
    """What the portfolio counts as, quote currency: sizes are shares of it, whatever was won or lost since."""
    size_percent: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Size of one position, percent of the portfolio."""
    size_by_strength: bool = False
    """Whether a weaker signal holds less, in quarters of `size_percent`; what is open is reduced, never added to."""
    min_strength: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least strength of a signal that is entered on; a weaker one still ends a position of the other side."""
    fee_percent: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Fee of each fill, percent of its value."""
    slippage_percent: Annotated[float, Field(ge=0, le=10)] = 0.05
    """How much worse than the open, or than a stop, a fill is."""
    stop_percent: Annotated[float, Field(gt=0, lt=100)] | None = None
    """Distance of the stop from the entry price; None is the stop of the signal, if it states one."""
    target_percent: Annotated[float, Field(gt=0, lt=100)] | None = None
    """The same for the target."""
    trailing_percent: Annotated[float, Field(gt=0, lt=100)] | None = None
    """Distance of the trailing stop from the best of the entry price and the closes since; None for none."""
    adjust_percent: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Least move of a stop or target, by a new signal of the same side, that is made."""


class Subscription(Value):
    """Which candles a strategy wants: shell-style wildcards for symbols, ``*`` for every timeframe."""

    symbols: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    timeframes: Annotated[
        tuple[Timeframe | Annotated[str, StringConstraints(pattern=r"^\*$")], ...], Field(min_length=1)
    ] = ("*",)

    def matches(self, symbol: str, timeframe: Timeframe) -> bool:
        """Tell whether candles of this symbol and timeframe are wanted."""
        wanted = "*" in self.timeframes or timeframe in self.timeframes
        return wanted and any(fnmatchcase(symbol, pattern) for pattern in self.symbols)


class StrategyDefinition(Value):
    """A registered, versioned strategy: what to run, with which params, on which candles, how urgently.

    Any change of what it computes (implementation, params) is a new `revision` in the catalogue.
    """

    name: StrategyName
    implementation: str
    params: dict[str, Any] = Field(default_factory=dict)
    subscription: Subscription = Subscription()
    priority: Priority = Priority.NORMAL
    category: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] = "general"
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    limits: Limits = Limits()
    trading: Trading | None = None
    """None: it keeps no positions."""
    status: StrategyStatus = StrategyStatus.ACTIVE


class RegisteredStrategy(Value):
    """A strategy definition as the catalogue holds it: with its id and current revision."""

    id: int
    revision: Annotated[int, Field(ge=1)]
    definition: StrategyDefinition
