"""Windows: the last candles of each series, kept per slot and extended candle by candle.

A window is a pure function of what Postgres holds up to its last candle: how it was put together
(extended, gap-filled, loaded) never shows. Arrays once handed out are never written again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app.domain.candles import Timeframe
from app.domain.jobs import Chunk
from app.strategies.bars import Bars

#: Open time in epoch milliseconds, open, high, low, close, volume.
Row = Sequence[Any]

#: Rows of a buffer: open, high, low, close, volume.
FIELDS = 5


class LoadRows(Protocol):
    """Loads the newest `count` candles of a series up to `until_ms`, later than `after_ms`; oldest first."""

    def __call__(
        self, symbol: str, timeframe: Timeframe, *, until: datetime, count: int, after: datetime | None
    ) -> Sequence[Row]:
        """Load the rows."""
        ...


class Series:
    """The newest candles of one series, in arrays that only grow at their end."""

    def __init__(self, length: int, rewrites: int) -> None:
        self._length = length
        self.rewrites = rewrites
        self.is_whole = False
        """Whether these are all the candles the series has had."""
        self._start = self._end = 0
        self._hold(np.empty(2 * length, np.int64), np.empty((FIELDS, 2 * length), np.float64))

    @property
    def last_ms(self) -> int | None:
        """Open time of the newest candle, epoch ms."""
        return int(self._times[self._end - 1]) if self._end > self._start else None

    def extend(self, rows: Sequence[Row]) -> None:
        """Append candles, oldest first; those beyond twice the window's length fall out at the front."""
        if not rows:
            return
        if self._end + len(rows) > self._times.size:
            self._make_room(len(rows))
        table = np.array(rows, dtype=object)
        place = slice(self._end, self._end + len(rows))
        self._times[place] = table[:, 0].astype(np.int64)
        self._fields[:, place] = table[:, 1:].T.astype(np.float64)
        self._end = place.stop

    def append(self, opened_ms: int, values: Sequence[float]) -> None:
        """Append one candle."""
        if self._end == self._times.size:
            self._make_room(1)
        self._times[self._end] = opened_ms
        self._fields[:, self._end] = values
        self._end += 1

    def until(self, opened_ms: int, symbol: str, timeframe: Timeframe) -> Bars | None:
        """Return the window that ends with this candle; None when it is not all here."""
        found = int(np.searchsorted(self._times[self._start : self._end], opened_ms)) + self._start
        if found >= self._end or self._times[found] != opened_ms:
            return None
        first = found + 1 - self._length
        if first < self._start:
            if not self.is_whole:
                return None
            first = self._start
        place = slice(first, found + 1)
        return Bars(symbol, timeframe, self._shown_times[place], *self._shown_fields[:, place])

    def _make_room(self, count: int) -> None:
        # a new buffer, never a shift in place: a window that was handed out stays what it was
        keep = max(self._start, self._end - self._length)
        if keep > self._start:
            self.is_whole = False
        size = self._end - keep
        capacity = max(2 * self._length, size + count)
        times, fields = np.empty(capacity, np.int64), np.empty((FIELDS, capacity), np.float64)
        times[:size], fields[:, :size] = self._times[keep : self._end], self._fields[:, keep : self._end]
        self._hold(times, fields)
        self._start, self._end = 0, size

    def _hold(self, times: npt.NDArray[np.int64], fields: npt.NDArray[np.float64]) -> None:
        """Write into these buffers from now on, and show them as nobody can make them writable again."""
        self._times, self._fields = times, fields
        self._shown_times, self._shown_fields = _shown(times), _shown(fields)


class WindowCache:
    """The windows of one slot, least recently used series dropped first."""

    def __init__(self, load: LoadRows, *, length: int, most_series: int) -> None:
        self._load = load
        self._length = length
        self._most = most_series
        self._series: OrderedDict[tuple[str, Timeframe], Series] = OrderedDict()

    def window(self, chunk: Chunk) -> Bars:
        """Return the last `length` candles up to the chunk's own, fewer when the series has no more.

        Raises:
            StorageUnavailableError: Postgres was needed and is away.
        """
        candle = chunk.candle
        symbol, timeframe = candle.symbol, candle.timeframe
        opened_ms = to_ms(candle.open_time)
        series = self._current(symbol, timeframe, chunk, opened_ms)
        bars = series.until(opened_ms, symbol, timeframe)
        if bars is None:  # an old candle whose past is no longer cached: look it up, leave the cache alone
            bars = self._fresh(symbol, timeframe, chunk).until(opened_ms, symbol, timeframe)
        if bars is None:
            raise LookupError(f"candle {symbol} {timeframe} {candle.open_time.isoformat()} is not in Postgres")
        return bars

    def _current(self, symbol: str, timeframe: Timeframe, chunk: Chunk, opened_ms: int) -> Series:
        series = self._series.get((symbol, timeframe))
        if series is None or series.rewrites < chunk.rewrites:
            return self._keep(symbol, timeframe, self._fresh(symbol, timeframe, chunk))
        self._series.move_to_end((symbol, timeframe))
        last_ms = series.last_ms
        if last_ms is None or opened_ms > last_ms:
            self._advance(series, symbol, timeframe, chunk, last_ms)
        return series

    def _advance(self, series: Series, symbol: str, timeframe: Timeframe, chunk: Chunk, last_ms: int | None) -> None:
        candle, previous = chunk.candle, chunk.previous_open_time
        if last_ms is not None and previous is not None and to_ms(previous) == last_ms:
            series.append(to_ms(candle.open_time), (candle.open, candle.high, candle.low, candle.close, candle.volume))
            return
        after = None if last_ms is None else from_ms(last_ms)
        rows = self._load(symbol, timeframe, until=candle.open_time, count=self._length, after=after)
        if len(rows) == self._length:  # the gap may be longer than the window: what came before it is cut off
            self._keep(symbol, timeframe, self._fresh(symbol, timeframe, chunk))
        else:
            series.extend(rows)

    def _fresh(self, symbol: str, timeframe: Timeframe, chunk: Chunk) -> Series:
        rows = self._load(symbol, timeframe, until=chunk.candle.open_time, count=self._length, after=None)
        series = Series(self._length, chunk.rewrites)
        series.extend(rows)
        series.is_whole = len(rows) < self._length
        return series

    def _keep(self, symbol: str, timeframe: Timeframe, series: Series) -> Series:
        self._series[symbol, timeframe] = series
        self._series.move_to_end((symbol, timeframe))
        if len(self._series) > self._most:
            self._series.popitem(last=False)
        return series


def _shown(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the same memory read-only for good: a view of an array could be made writable again by whoever has it."""
    memory = array.data.cast("B").toreadonly()
    return np.frombuffer(memory, array.dtype).reshape(array.shape)


def to_ms(moment: datetime) -> int:
    """Return an aware moment as epoch milliseconds."""
    return round(moment.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """Return epoch milliseconds as an aware moment."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
