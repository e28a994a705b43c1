"""Ten strategies, each wrong in one way that a quant may not notice; and the same idea done right."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import numpy as np
import talib

from app.strategies.sdk import (
    Bars,
    Context,
    FloatArray,
    Indicator,
    Lines,
    Signal,
    Signals,
    Strategy,
    signals_from_score,
)


def follow(line: FloatArray, bars: Bars, atr: FloatArray) -> Signals:
    """Follow a line: long while the close is above it, by how many ATRs."""
    return signals_from_score((bars.close - line) / np.maximum(atr, bars.close * 1e-6) / 4.0, atr, bars.close)


class Follows(Strategy):
    """Right: follows a declared average."""

    average, atr = Indicator.sma(20), Indicator.atr(14)

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return follow(indicators["average"], bars, indicators["atr"])


class PeeksAhead(Follows):
    """Compares with the next close."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        following = np.append(bars.close[1:], bars.close[-1])
        return signals_from_score((following - bars.close) / indicators["atr"], indicators["atr"], bars.close)


class PeeksThroughCentredWindow(Follows):
    """Smooths with as many later candles as earlier ones."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        smooth = np.convolve(bars.close, np.ones(9) / 9, mode="same")
        return follow(smooth, bars, indicators["atr"])


class NormalisesGlobally(Follows):
    """Measures in standard deviations of everything it gets."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        score = (bars.close - bars.close.mean()) / max(float(bars.close.std()), 1e-12)
        return signals_from_score(score / 3.0, indicators["atr"], bars.close)


class IsRandom(Follows):
    """Adds noise."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        noise = np.random.default_rng().normal(0.0, 0.1, len(bars))
        return signals_from_score(noise, indicators["atr"], bars.close)


class LooksAtTheClock(Follows):
    """Trades on even minutes of the machine's clock."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        answer = follow(indicators["average"], bars, indicators["atr"])
        return answer if time.gmtime().tm_min % 2 == 0 else answer._replace(action=np.zeros(len(bars), np.int8))


class WarmsUpTooShortly(Strategy):
    """Computes a slow average by hand and asks for as many candles as its period."""

    atr = Indicator.atr(14)

    def candles_needed(self) -> int:
        return 100

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return follow(talib.EMA(bars.close, 100), bars, indicators["atr"])


class KeepsState(Strategy):
    """Counts how often it was asked, and answers by that."""

    atr = Indicator.atr(14)
    asked = 0

    def on_candle(self, context: Context) -> Signal:
        self.asked += 1
        return Signal(action=1 if self.asked % 3 else -1, strength=0.5)


class IsSlow(Follows):
    """Takes a tenth of a second longer than it may."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        time.sleep(0.2)
        return super().signals(bars, indicators)


class HogsMemory(Follows):
    """Compares every candle with every other one, a few thousand times."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        table = np.zeros((4096, len(bars), len(bars)))  # 8 GiB for a window of 512
        return signals_from_score(table[0, 0] + 1.0, indicators["atr"], bars.close)


class CallsHome(Follows):
    """Asks a server, and goes on without an answer."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.01).close()
        return super().signals(bars, indicators)
