"""Windows of the contenders that are not this system: kept in the process and extended candle by candle, as ours are.

They share `app.strategies.bars.Bars` with it, so that every contender makes the very same strategy call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from app.domain.candles import Candle, Timeframe
from app.strategies.bars import Bars
from app.strategies.indicators import IndicatorCache

#: Open time in epoch milliseconds, open, high, low, close, volume.
Row = Sequence[float]

#: Loads candles of a symbol that opened later than the first moment and up to the second, epoch ms; oldest first.
LoadRows = Callable[[str, int, int], Sequence[Row]]

_FIELDS = 5


class Window:
    """The last candles of one symbol."""

    def __init__(self, symbol: str, timeframe: Timeframe, length: int) -> None:
        self._symbol, self._timeframe, self._length = symbol, timeframe, length
        self._end = 0
        self._times: npt.NDArray[np.int64] = np.empty(2 * length, np.int64)
        self._fields: npt.NDArray[np.float64] = np.empty((_FIELDS, 2 * length), np.float64)
        self.last_ms = 0

    def append(self, row: Row) -> None:
        """Append a candle."""
        if self._end == self._times.size:
            self._make_room()
        self.last_ms = self._times[self._end] = int(row[0])
        self._fields[:, self._end] = row[1:]
        self._end += 1

    def until(self, opened_ms: int) -> Bars | None:
        """Return the window that ends with this candle; None when the candle is not here."""
        end = self._end
        if opened_ms != self.last_ms:
            end = int(np.searchsorted(self._times[: self._end], opened_ms)) + 1
            if end > self._end or self._times[end - 1] != opened_ms:
                return None
        place = slice(max(0, end - self._length), end)
        return Bars(self._symbol, self._timeframe, self._times[place], *self._fields[:, place])

    def _make_room(self) -> None:
        # new arrays: a window that was handed out stays what it was
        times, fields, kept = np.empty_like(self._times), np.empty_like(self._fields), self._length
        times[:kept], fields[:, :kept] = self._times[-kept:], self._fields[:, -kept:]
        self._times, self._fields, self._end = times, fields, kept


class Windows:
    """The windows of one process, each with the indicators of its newest candle.

    Args:
        timeframe: of all candles.
        length: candles a strategy sees.
        load: fills gaps; None where there are none.
    """

    def __init__(self, timeframe: Timeframe, length: int, load: LoadRows | None = None) -> None:
        self._timeframe, self._length, self._load = timeframe, length, load
        self._step_ms = round(timeframe.duration.total_seconds() * 1000)
        self._windows: dict[str, Window] = {}
        self._newest: dict[str, tuple[int, IndicatorCache]] = {}

    def at(self, symbol: str, row: Row) -> IndicatorCache:
        """Return the bars up to a candle, in the cache of their indicators that its strategies share."""
        opened_ms = int(row[0])
        known = self._newest.get(symbol)
        if known is not None and known[0] == opened_ms:
            return known[1]
        window = self._advanced(symbol, row)
        bars = window.until(opened_ms)
        if bars is None:
            raise LookupError(f"candle {symbol} at {opened_ms} is not in the window")
        cache = IndicatorCache(bars)
        if opened_ms == window.last_ms:
            self._newest[symbol] = opened_ms, cache
        return cache

    def _advanced(self, symbol: str, row: Row) -> Window:
        opened_ms = int(row[0])
        window = self._windows.get(symbol)
        if window is None:
            window = self._windows[symbol] = Window(symbol, self._timeframe, self._length)
        if opened_ms > window.last_ms + self._step_ms and self._load is not None:
            for missed in self._load(symbol, max(window.last_ms, opened_ms - self._length * self._step_ms), opened_ms):
                window.append(missed)
        if opened_ms > window.last_ms:
            window.append(row)
        return window


def row_of(candle: Candle) -> Row:
    """Return a candle as plain numbers."""
    opened_ms = round(candle.open_time.timestamp() * 1000)
    return [opened_ms, candle.open, candle.high, candle.low, candle.close, candle.volume]
