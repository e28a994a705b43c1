"""Strategies that answer with what is no signal, each in one way."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.strategies.sdk import Bars, Context, Indicator, Lines, Signal, Signals, Strategy


def answer(bars: Bars) -> Signals:
    """Return a right answer, to be spoilt."""
    return Signals(np.ones(len(bars), np.int8), np.full(len(bars), 0.5))


class NaNStrength(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(strength=np.full(len(bars), np.nan))


class StrengthAboveOne(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(strength=np.full(len(bars), 1.5))


class StrengthBelowZero(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(strength=np.full(len(bars), -0.1))


class UnknownAction(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(action=np.full(len(bars), 7, np.int8))


class TooLong(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(action=np.ones(len(bars) + 1, np.int8))


class TwoDimensional(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(strength=np.full((len(bars), 1), 0.5))


class WrongDtype(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(action=np.ones(len(bars)))  # type: ignore[arg-type]  # the mistake


class AList(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(strength=[0.5] * len(bars))  # type: ignore[arg-type]  # the mistake


class InfiniteEdge(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(edge=np.full(len(bars), np.inf))


class NegativeStop(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(stop=np.full(len(bars), -1.0))


class NoSignals(Strategy):
    def signals(self, bars: Bars, indicators: Lines) -> Any:
        return bars.close


class SureBeyondMeasure(Strategy):
    def on_candle(self, context: Context) -> Signal:
        return Signal(action=1, strength=2.0)


class AsksForAnother(Strategy):
    """Looks up an indicator under a name that it did not declare."""

    mean = Indicator.sma(1)

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)._replace(strength=indicators["maen"])


class DeclaresTheUnknown(Strategy):
    """Declares an indicator that does not exist."""

    rsii = Indicator("rsii", (14,))

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)


class TooHigh(Strategy):
    """Has a higher timeframe that hours do not make."""

    trend = Indicator.candle().on("30m")

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return answer(bars)
