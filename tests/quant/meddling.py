"""Strategies that change what others share, each in one way. `noticing` has one who would notice."""

from __future__ import annotations

import decimal
import gc
import locale
import os
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import talib

from app.strategies.sdk import Context, Indicator, Signal, Strategy

#: The last digits of whoever asked last.
KEPT: dict[str, object] | None = {"answer": 0}


class Meddles(Strategy):
    """Base: does its worst and answers."""

    def on_candle(self, context: Context) -> Signal:
        self.meddle(context)
        return Signal(action=-1, strength=1.0)

    def meddle(self, context: Context) -> None:
        raise NotImplementedError


class RaisesOnFloats(Meddles):
    """Has numpy raise, for good."""

    def meddle(self, context: Context) -> None:
        np.seterr(all="raise")
        np.seterrcall(lambda *_: None)


class TurnsWarningsIntoErrors(Meddles):
    """Has every warning raise, for good."""

    def meddle(self, context: Context) -> None:
        warnings.simplefilter("error")


class ForgetsWarnings(Meddles):
    """Empties the filters, and puts another list in their place."""

    def meddle(self, context: Context) -> None:
        warnings.resetwarnings()
        warnings.filters = []


class RoundsDecimals(Meddles):
    """Computes with three digits, and has everybody else do so."""

    def meddle(self, context: Context) -> None:
        decimal.getcontext().prec = 3
        decimal.DefaultContext.prec = 3
        decimal.DefaultContext.rounding = decimal.ROUND_UP


class NestsDeeply(Meddles):
    """Changes how deep calls may go, and turns the collector off."""

    def meddle(self, context: Context) -> None:
        sys.setrecursionlimit(5000)
        gc.disable()


class MovesAway(Meddles):
    """Changes folder, environment and locale."""

    def meddle(self, context: Context) -> None:
        os.environ["MEDDLED"] = "yes"
        os.environ.pop("PATH", None)
        with tempfile.TemporaryDirectory() as gone:
            os.chdir(gone)
        locale.setlocale(locale.LC_ALL, "C.UTF-8" if "UTF" not in locale.setlocale(locale.LC_ALL) else "C")


class StealsTheAlarm(Meddles):
    """Takes the signal that ends slow jobs."""

    def meddle(self, context: Context) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


class SeedsEverything(Meddles):
    """Seeds all that is random."""

    def meddle(self, context: Context) -> None:
        random.seed(1)
        np.random.seed(1)


class WritesIntoWhatItGets(Meddles):
    """Makes arrays writable again and writes into them."""

    atr, rsi = Indicator.atr(14), Indicator.rsi(14)

    def meddle(self, context: Context) -> None:
        bars = context.bars
        for array in (bars.close, bars.open_time, bars.close.view(), bars.last(3).high, *context.indicators.values()):
            with suppress(ValueError):
                array.setflags(write=True)
                array[:] = 0


class ChangesParamsAndGlobals(Meddles):
    """Changes its class, its module and its params."""

    class Params(Strategy.Params):
        """One number."""

        number: int = 1

    params: Params

    def meddle(self, context: Context) -> None:
        (KEPT or {})["answer"] = context.close
        globals()["KEPT"] = None
        with suppress(Exception):
            self.params.number = 2  # type: ignore[misc]  # params are frozen: it tries all the same
        type(self).Params = type("Params", (Strategy.Params,), {})  # type: ignore[assignment,misc]


class ChangesTheIndicators(Meddles):
    """Changes what TA-Lib answers to everybody."""

    def meddle(self, context: Context) -> None:
        change: Callable[[str, int], None] = talib.set_unstable_period
        change("RSI", 200)


class MeddlesWhenMade(Strategy):
    """Meddles when it is created, as a module does that sets something at its top."""

    def __init__(self, params: Strategy.Params | None = None, *, name: str | None = None) -> None:
        super().__init__(params, name=name)
        np.seterr(all="raise")
        warnings.simplefilter("error")
        os.environ["MEDDLED"] = "at import"

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=0, strength=0.0)
