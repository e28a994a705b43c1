"""Checked rows: a block's rows set on their series and grid, the impossible ones refused with a reason.

The rules are those of Candle, over whole columns at once. A row is a record of ROW: 64 bytes,
so that a sorted run of many rows is cheap in memory and on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from app.domain.candles import EPOCH, Symbol, Timeframe
from app.errors import FeedError, did_you_mean
from app.feeds.files.columns import Columns
from app.feeds.files.discovery import CandleFile
from app.feeds.files.faults import IntArray, Mask, Reason
from app.feeds.files.table import Block

ROW = np.dtype(
    [("close_us", "i8"), ("rank", "i4"), ("series", "i4"), ("open_us", "i8")]
    + [(name, "f8") for name in ("open", "high", "low", "close", "volume")]
)
Rows = NDArray[np.void]

_MICROSECOND = timedelta(microseconds=1)
#: What a datetime can hold, in microseconds of the epoch.
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
_LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
_SYMBOL = TypeAdapter(Symbol)
_TIMEFRAMES = {frame.value: frame for frame in Timeframe}
_UNKNOWN_SYMBOL, _UNKNOWN_TIMEFRAME = -1, -2


@dataclass(frozen=True)
class Series:
    """The candles of one symbol and timeframe."""

    symbol: str
    timeframe: Timeframe

    @property
    def duration_us(self) -> int:
        """Length of one candle in microseconds."""
        return self.timeframe.duration // _MICROSECOND

    @property
    def anchor_us(self) -> int:
        """An open time of the grid nearest to the epoch, in microseconds."""
        return (self.timeframe.floor(EPOCH) - EPOCH) // _MICROSECOND


class SeriesTable:
    """Numbers every series that a replay meets, so that a row names its series by a small integer."""

    def __init__(self) -> None:
        self.series: list[Series] = []
        self._numbers: dict[Series, int] = {}
        self._by_text: dict[tuple[str | None, str | None], int] = {}
        self._durations = np.zeros(0, dtype=np.int64)
        self._anchors = np.zeros(0, dtype=np.int64)

    def number(self, symbol: str | None, timeframe: str | None) -> int:
        """Return the number of a series as the file writes it; negative when it is none."""
        number = self._by_text.get((symbol, timeframe))
        if number is None:
            number = self._read(symbol, timeframe)
            if number >= 0:  # junk is not remembered: a column of it must not fill the memory
                self._by_text[symbol, timeframe] = number
        return number

    def durations(self, numbers: IntArray) -> IntArray:
        """Length of one candle, microseconds, for each series number."""
        return self._durations[numbers]

    def anchors(self, numbers: IntArray) -> IntArray:
        """A point of the grid, microseconds, for each series number."""
        return self._anchors[numbers]

    def _read(self, symbol: str | None, timeframe: str | None) -> int:
        frame = read_timeframe(timeframe or "")
        if frame is None:
            return _UNKNOWN_TIMEFRAME
        name = (symbol or "").strip()
        return self._add(Series(name, frame)) if _is_symbol(name) else _UNKNOWN_SYMBOL

    def _add(self, series: Series) -> int:
        if series not in self._numbers:
            self._numbers[series] = len(self.series)
            self.series.append(series)
            self._durations = np.append(self._durations, series.duration_us)
            self._anchors = np.append(self._anchors, series.anchor_us)
        return self._numbers[series]


def read_timeframe(text: str) -> Timeframe | None:
    """Read a timeframe; hours, days and weeks may be written in capitals (``1M`` is a month elsewhere: refused)."""
    word = text.strip()
    word = word.lower() if word[-1:] in {"H", "D", "W"} else word
    return _TIMEFRAMES.get(word)


def require_series(file: CandleFile, columns: Columns) -> None:
    """Check that every row of a file can be given its series.

    Raises:
        FeedError: neither the file's name nor a column says the symbol, or the timeframe.
    """
    if columns.symbol is None and file.symbol is None:
        raise FeedError(f"{file.path}: expected a name like BTC-USDT-1h.csv.gz or a column `symbol`, found neither")
    if columns.symbol is None and not _is_symbol(file.symbol or ""):
        raise FeedError(
            f"{file.path}: expected a symbol of letters, digits and ._:/- in the name, found {file.symbol!r}"
        )
    if columns.timeframe is None and read_timeframe(file.timeframe or "") is None:
        hint = did_you_mean(file.timeframe or "", list(Timeframe))
        raise FeedError(f"{file.path}: expected a timeframe in the name or a column `timeframe`, found none; {hint}")


def _is_symbol(text: str) -> bool:
    try:
        _SYMBOL.validate_python(text)
    except ValidationError:
        return False
    return True


def place(block: Block, file: CandleFile, table: SeriesTable) -> tuple[IntArray, IntArray]:
    """Find series and close time of a block's rows; rows that are off the grid or out of time are blamed.

    Returns:
        Series numbers and close times in microseconds, (n,) each, valid where the block is clean.
    """
    numbers = _number_rows(block, file, table)
    block.faults.blame(numbers == _UNKNOWN_TIMEFRAME, Reason.BAD_TIMEFRAME)
    block.faults.blame(numbers == _UNKNOWN_SYMBOL, Reason.BAD_SYMBOL)
    if not table.series:
        return numbers, block.open_us
    known = np.maximum(numbers, 0)
    close_us = block.open_us + table.durations(known)
    block.faults.blame((block.open_us < _FIRST_US) | (close_us > _LAST_US), Reason.BAD_TIMESTAMP)
    off_grid = (block.open_us - table.anchors(known)) % table.durations(known) != 0
    block.faults.blame(off_grid, Reason.OFF_GRID)
    return numbers, close_us


def build_rows(block: Block, file: CandleFile, table: SeriesTable) -> Rows:
    """Build the rows of a block that pass every check of Candle; the others are blamed in the block."""
    numbers, close_us = place(block, file, table)
    _check_values(block)
    rows = np.empty(len(block.open_us), dtype=ROW)
    rows["close_us"], rows["rank"], rows["series"], rows["open_us"] = close_us, file.rank, numbers, block.open_us
    for name, column in zip(("open", "high", "low", "close", "volume"), block.values, strict=True):
        rows[name] = column
    return rows[block.faults.clean]


def _number_rows(block: Block, file: CandleFile, table: SeriesTable) -> IntArray:
    count = len(block.open_us)
    if block.symbols is None and block.timeframes is None:
        return np.full(count, table.number(file.symbol, file.timeframe), dtype=np.int64)
    symbols: Any = block.symbols if block.symbols is not None else [file.symbol] * count
    timeframes: Any = block.timeframes if block.timeframes is not None else [file.timeframe] * count
    return np.fromiter(map(table.number, symbols, timeframes), dtype=np.int64, count=count)


def _check_values(block: Block) -> None:
    open_, high, low, close, volume = block.values
    infinite: Mask = np.logical_or.reduce([~np.isfinite(column) for column in block.values])
    block.faults.blame(infinite, Reason.NOT_FINITE)
    block.faults.blame(np.minimum.reduce([open_, high, low, close]) <= 0, Reason.BAD_PRICE)
    block.faults.blame(volume < 0, Reason.BAD_VOLUME)
    outside = (high < np.maximum(open_, close)) | (low > np.minimum(open_, close))
    block.faults.blame(outside, Reason.BAD_RANGE)
