"""The strategy SDK: what a quant derives from and answers with. Pure: no clock, storage, network or settings.

A strategy is a stateless function of a window of candles: equal windows give bit-equal signals, whichever other
strategies share the window. `docs/strategies.md` shows how to write one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, JsonValue

from app.domain.candles import Timeframe
from app.domain.jobs import Signal
from app.errors import TimeframeError
from app.strategies.bars import Bars, FloatArray
from app.strategies.indicators import Indicator, IndicatorCache

__all__ = [
    "Bars",
    "Context",
    "FloatArray",
    "Indicator",
    "IndicatorCache",
    "Lines",
    "Signal",
    "Signals",
    "Strategy",
    "in_ranges",
    "signals_from_score",
]

ActionArray = npt.NDArray[np.int8]

#: The declared indicators of a strategy, computed: each (n,) float64, read-only, NaN where history is too short.
Lines = Mapping[str, FloatArray]

#: A score this close to zero is flat: it is a rounding remainder and not a view. Far above what float64 leaves
#: behind once it is divided by NARROWEST_RANGE (2.2e-16 / 1e-9), far below any strength that matters.
FLAT_SCORE = 1e-6

#: The narrowest range, as a share of the price, that anything is measured in: in a market that does not move, the
#: rounding of the averages must not look like a large multiple of nothing.
NARROWEST_RANGE = 1e-9


class Signals(NamedTuple):
    """What a vectorised strategy answers: one cell per candle, oldest first."""

    action: ActionArray
    """(n,) int8: -1 short, 0 flat, 1 long."""
    strength: FloatArray
    """(n,) float64: how sure, 0 to 1."""
    edge: FloatArray | None = None
    """(n,) float64: expected advantage in percent of price; NaN where none is stated."""
    stop: FloatArray | None = None
    """(n,) float64: protective stop, quote currency; NaN where none is stated, not used where flat."""
    target: FloatArray | None = None
    """(n,) float64: profit target, quote currency; NaN where none is stated, not used where flat."""
    extras: dict[str, JsonValue] | None = None
    """Anything else to keep with the outcome of the last candle; plain JSON."""

    @property
    def columns(self) -> tuple[npt.NDArray[np.generic] | None, ...]:
        """The cells of all candles, column by column; None for one that is not stated."""
        return self.action, self.strength, self.edge, self.stop, self.target


@dataclass(frozen=True, slots=True)
class Context:
    """What a per-candle strategy sees: the window up to and including the candle it answers for."""

    bars: Bars
    indicators: Lines
    index: int
    """Position of the candle in the window; always the last."""

    @property
    def close(self) -> float:
        """Close of the candle, quote currency."""
        return float(self.bars.close[self.index])

    def value(self, name: str, ago: int = 0) -> float:
        """Return a declared indicator's value `ago` candles back.

        Raises:
            KeyError: no indicator was declared under that name.
            IndexError: `ago` is negative or older than the window.
        """
        if not 0 <= ago <= self.index:
            raise IndexError(f"expected ago of 0 to {self.index}, found {ago}")
        return float(self.indicators[name][self.index - ago])


class Strategy:
    """Base of every strategy: define exactly one of `signals` (preferred) and `on_candle`.

    An instance holds params and nothing that changes. Indicators are class attributes, or come from `indicators()`
    when they depend on params.

    Args:
        params: the strategy's params; None for its defaults.
        name: how errors call it; the class name when None.

    Attributes:
        params: the validated params.
        name: how errors call it.
        declared: its indicators by name.
        warmups: candles needed before a signal is valid, by their timeframe; one that it cannot work on is absent.
        warmup: the most of these. They differ only where an indicator is declared on a higher timeframe.

    Raises (at class creation):
        TypeError: neither or both of the two forms are defined, or Params does not derive from Strategy.Params.
    """

    class Params(BaseModel):
        """Params of a strategy: frozen, unknown keys refused, no silent conversion of types."""

        model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    #: Candles that `signals` or `on_candle` reads back beyond the newest cell of bars and indicators.
    reach: ClassVar[int] = 0
    #: What whoever runs the strategy should know of it; `strategies show` prints it.
    notes: ClassVar[tuple[str, ...]] = ()
    #: Whether the strategy defines `signals`; set at class creation.
    vectorised: ClassVar[bool]

    params: Params

    def __init__(self, params: Params | None = None, *, name: str | None = None) -> None:
        self.params = self.Params() if params is None else params
        self.name = type(self).__name__ if name is None else name
        self.declared: Mapping[str, Indicator] = MappingProxyType(self.indicators())
        self.warmups: Mapping[Timeframe, int] = MappingProxyType(dict(self._warmups()))
        self.warmup = max(self.warmups.values())

    def close(self) -> None:
        """Give back what the instance holds; called once, when a slot drops it. There is nothing to do by default."""

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """Strategies that it asks itself: their code is part of what it computes."""
        return ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.vectorised = _defined_form(cls) == "signals"
        if not issubclass(cls.Params, Strategy.Params):
            raise TypeError(f"strategy {cls.__name__}: expected Params to derive from Strategy.Params")

    def indicators(self) -> dict[str, Indicator]:
        """Declare the indicators under the names the strategy reads them by; by default its class attributes."""
        attributes = {name: value for base in reversed(type(self).__mro__) for name, value in vars(base).items()}
        return {name: value for name, value in attributes.items() if isinstance(value, Indicator)}

    def candles_needed(self) -> int:
        """Return the warm-up: the slowest declared indicator's, plus `reach`; without those of higher timeframes."""
        own = (indicator.settled for indicator in self.declared.values() if not indicator.timeframe)
        return max(own, default=1) + self.reach

    def candles_needed_on(self, timeframe: Timeframe) -> int:
        """Return the warm-up on candles of a timeframe: the longest of `candles_needed` and of higher timeframes.

        Raises:
            TimeframeError: candles of that timeframe cannot make those of a higher one that is declared.
        """
        higher = (each.settled_on(timeframe) for each in self.declared.values() if each.timeframe)
        return max([self.candles_needed(), *(settled + self.reach for settled in higher)])

    def _warmups(self) -> Iterator[tuple[Timeframe, int]]:
        for timeframe in Timeframe:
            with suppress(TimeframeError):
                yield timeframe, self.candles_needed_on(timeframe)

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Answer for every candle of the window at once, each from itself and older candles only.

        Args:
            bars: the window, oldest first, read-only.
            indicators: the declared indicators, each (n,) float64.

        Returns:
            One cell per candle; cells before the warm-up are not used.
        """
        raise NotImplementedError

    def on_candle(self, context: Context) -> Signal:
        """Answer for the last candle of the window."""
        raise NotImplementedError


def _defined_form(cls: type[Strategy]) -> str:
    forms = [form for form in ("signals", "on_candle") if getattr(cls, form) is not getattr(Strategy, form)]
    if len(forms) != 1:
        found = "both" if forms else "neither"
        raise TypeError(f"strategy {cls.__name__}: expected exactly one of signals and on_candle, found {found}")
    return forms[0]


def in_ranges(distance: FloatArray, span: FloatArray, close: FloatArray) -> FloatArray:
    """Measure a distance in ranges, such as ATRs; a range under NARROWEST_RANGE of the price counts as that.

    Args:
        distance: (n,) float64, quote currency, signed.
        span: (n,) float64, quote currency, at least 0.
        close: (n,) float64, quote currency.

    Returns:
        (n,) float64, signed, no unit; NaN where an input is.
    """
    return distance / np.maximum(span, close * NARROWEST_RANGE)


def signals_from_score(
    score: FloatArray,
    move: FloatArray,
    close: FloatArray,
    *,
    stop: FloatArray | None = None,
    target: FloatArray | None = None,
) -> Signals:
    """Turn a signed score into signals: its sign is the action, its size (at most 1) the strength.

    The edge is strength * move / close * 100: the part of the expected move, in percent of price, that the strategy
    is sure of. A score within FLAT_SCORE of zero, or NaN, is flat with strength 0.

    Args:
        score: (n,) float64, above 0 long, below 0 short, finite or NaN.
        move: (n,) float64, the expected move at full strength, quote currency, at least 0.
        close: (n,) float64, quote currency.
        stop: (n,) float64, quote currency, or None.
        target: (n,) float64, quote currency, or None.
    """
    action = (score > FLAT_SCORE).view(np.int8) - (score < -FLAT_SCORE).view(np.int8)
    strength = np.fmax(np.minimum(score * action, 1.0), 0.0)  # fmax: NaN becomes 0
    return Signals(action, strength, strength * move / close * 100.0, stop, target)
