"""The composite as a strategy: it asks its analyzers, weighs what they say, and applies its rules.

How it is written in a definition, and what each rule means: docs/strategies.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from app.domain.candles import Timeframe
from app.errors import CandlefleetError, ConfigurationError, ParamsError, StrategyError
from app.strategies.bars import Bars, FloatArray
from app.strategies.composite.asking import ask_all
from app.strategies.composite.params import Analyzer, CompositeParams, Session
from app.strategies.composite.rules import BoolArray, View, count_agreeing, hold, mean_edge, nearest, weigh
from app.strategies.sdk import ActionArray, Indicator, Lines, Signals, Strategy

#: The name that a definition gives as implementation.
COMPOSITE = "composite"

_HOUR_MS, _DAY_HOURS = 3_600_000, 24

#: Makes an analyzer of an implementation, params and a name.
Make = Callable[[str, Mapping[str, Any], str], Strategy]


@dataclass(frozen=True, slots=True)
class _Part:
    """An analyzer, and under which names of the composite its indicators are."""

    name: str
    weight: float
    strategy: Strategy
    lines: Mapping[str, str]


class Composite(Strategy):
    """Weighs the views of other strategies.

    score = sum(weight * action * strength) / sum(weight) over the analyzers. A side is taken where the score reaches
    its entry threshold, enough analyzers agree, every filter lets it and the gate's trend agrees; it is held until the
    score falls to its exit threshold, see `rules.hold`. Filters and gate hold entries back and end nothing.
    strength = the score on the side, at most 1. edge: weighted mean of those who agree. Stop and target: the nearest.
    """

    class Params(CompositeParams):
        """Analyzers, rules, filters and gate."""

    params: Params

    #: Makes its analyzers; `composite_of` sets it.
    make: ClassVar[Make]

    def __init__(self, params: Params, *, name: str | None = None) -> None:
        self._parts = _make_parts(type(self).make, params, name or COMPOSITE)
        super().__init__(_completed(params, self._parts), name=name)

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """Its analyzers."""
        return tuple(part.strategy for part in self._parts)

    def close(self) -> None:
        """Close the analyzers."""
        for part in self._parts:
            part.strategy.close()

    def indicators(self) -> dict[str, Indicator]:
        """Declare what its analyzers have declared, and what the filters and the gate that are set need."""
        declared = self._own()
        for part in self._parts:
            declared |= {part.lines[name]: indicator for name, indicator in part.strategy.declared.items()}
        return declared

    def candles_needed_on(self, timeframe: Timeframe) -> int:
        """Return the longest warm-up of what it looks at, plus `hold`: an entry so long ago may still count."""
        analyzers = [part.strategy.candles_needed_on(timeframe) for part in self._parts]
        own = [indicator.settled_on(timeframe) for indicator in self._own().values()]
        return max([*analyzers, *own]) + self.params.hold

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Weigh the analyzers and apply the rules."""
        views = [self._view(part, bars, indicators) for part in self._parts]
        score = weigh(views)
        side = self._side(score, views, bars, indicators)
        strength = np.where(side != 0, np.minimum(score * side, 1.0), 0.0)
        said: Any = {part.name: float(view.score[-1]) for part, view in zip(self._parts, views, strict=True)}
        return Signals(
            side,
            strength,
            mean_edge(views, side),
            nearest(views, side, is_stop=True),
            nearest(views, side, is_stop=False),
            {"score": float(score[-1]), "analyzers": said},
        )

    def _view(self, part: _Part, bars: Bars, indicators: Lines) -> View:
        lines = {name: indicators[own] for name, own in part.lines.items()}
        answer = self._ask(part, bars, lines)
        score = answer.action * answer.strength
        return View(part.weight, answer.action, score, answer.edge, answer.stop, answer.target)

    def _ask(self, part: _Part, bars: Bars, lines: Lines) -> Signals:
        try:
            return ask_all(part.strategy, bars, lines, since=self.params.hold)
        except (CandlefleetError, MemoryError):  # of memory: the slot explains it
            raise
        except Exception as error:
            raise StrategyError(f"analyzer {part.strategy.name!r} raised {type(error).__name__}: {error}") from error

    def _side(self, score: FloatArray, views: list[View], bars: Bars, indicators: Lines) -> ActionArray:
        entry, leave = self.params.entry, self.params.exit
        may_long, may_short = self._allowed(bars, indicators)
        long = (score >= entry.long) & (count_agreeing(views, 1) >= entry.agree) & may_long
        short = (score <= -entry.short) & (count_agreeing(views, -1) >= entry.agree) & may_short
        taken = long.view(np.int8) - short.view(np.int8)
        return hold(taken, score <= leave.long, score >= -leave.short, self.params.hold)

    def _allowed(self, bars: Bars, indicators: Lines) -> tuple[BoolArray, BoolArray]:
        """Return where a long, and where a short may be taken: (n,) bool each."""
        passes, sides = self._passes(bars, indicators), self.params.sides
        long, short = passes & (sides != "short"), passes & (sides != "long")
        if self.params.gate is None:
            return long, short
        close, trend = indicators["gate.close"], indicators["gate.trend"]
        return long & (close > trend), short & (close < trend)

    def _passes(self, bars: Bars, indicators: Lines) -> BoolArray:
        filters, passes = self.params.filters, np.ones(len(bars), np.bool_)
        if filters.volatility is not None:
            percent = indicators["filters.atr"] / bars.close * 100.0
            passes &= (percent >= filters.volatility.least_percent) & (percent <= filters.volatility.most_percent)
        if filters.volume is not None:
            passes &= bars.volume >= indicators["filters.volume"] * (filters.volume.least_percent / 100.0)
        if filters.session is not None:
            passes &= _in_session(bars, filters.session)
        return passes

    def _own(self) -> dict[str, Indicator]:
        filters, gate, own = self.params.filters, self.params.gate, {}
        if filters.volatility is not None:
            own["filters.atr"] = Indicator.atr(filters.volatility.period)
        if filters.volume is not None:
            own["filters.volume"] = Indicator.volume(filters.volume.period)
        if gate is not None:
            own["gate.close"] = Indicator.candle(line="close").on(gate.timeframe)
            own["gate.trend"] = Indicator.ema(gate.period).on(gate.timeframe)
        return own


def composite_of(make: Make) -> type[Composite]:
    """Return the composite whose analyzers are made so.

    Args:
        make: raises ConfigurationError when there is no such implementation, ParamsError when its params are wrong.
    """
    body = {"make": staticmethod(make), "__module__": Composite.__module__, "__doc__": Composite.__doc__}
    return type(Composite.__name__, (Composite,), body)


def _make_parts(make: Make, params: CompositeParams, name: str) -> tuple[_Part, ...]:
    """Make the analyzers, by name: the database does not keep the order of keys, and the sum shall not depend on it."""
    parts, problems = [], []
    for key, analyzer in sorted(params.analyzers.items()):
        try:
            parts.append(_make_part(make, key, analyzer, f"{name}.{key}"))
        except ParamsError as error:
            problems += [(("analyzers", key, *path), text) for path, text in error.problems]
        except ConfigurationError as error:
            problems.append((("analyzers", key, "implementation"), str(error)))
    if problems:
        raise ParamsError(problems)
    return tuple(parts)


def _make_part(make: Make, key: str, analyzer: Analyzer, name: str) -> _Part:
    if analyzer.implementation == COMPOSITE:
        raise ConfigurationError("expected a strategy that is no composite itself, found 'composite'")
    strategy = make(analyzer.implementation, analyzer.params, name)
    lines = {line: f"analyzers.{key}.{line}" for line in strategy.declared}
    return _Part(key, analyzer.weight, strategy, lines)


def _completed(params: Composite.Params, parts: tuple[_Part, ...]) -> Composite.Params:
    """Fill in the defaults of the analyzers' params, so that a revision says what it computes."""
    analyzers = {
        part.name: params.analyzers[part.name].model_copy(
            update={"params": part.strategy.params.model_dump(mode="json")}
        )
        for part in parts
    }
    return params.model_copy(update={"analyzers": analyzers})


def _in_session(bars: Bars, session: Session) -> BoolArray:
    closed = bars.open_time + round(bars.timeframe.duration.total_seconds() * 1000)
    hour = closed // _HOUR_MS % _DAY_HOURS
    since, before = hour >= session.from_hour, hour < session.to_hour
    return since & before if session.from_hour < session.to_hour else since | before
