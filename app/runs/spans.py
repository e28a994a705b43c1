"""Spans: the candles of one series over a run's range, cut into blocks that share their indicators. Pure.

Blocks stand on a grid of time that no run changes. Each is computed with a window of candles before it, so that what
a cell says depends on its block and that window alone: not on where a run begins or ends, or how it is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from app.domain.candles import Timeframe
from app.strategies.bars import Bars
from app.strategies.indicators import IndicatorCache

#: Candles of a block: with a window of 512 in front of each, 6 % are computed twice; running sums do not drift far.
BLOCK = 8192

_BYTES_A_CELL = 8


class Block(NamedTuple):
    """A part of a span that is computed at once."""

    indicators: IndicatorCache
    """Of its candles and the window before them."""
    start: int
    """Place of the first of these in the span."""
    first: int
    """Place of the first candle that it answers for; the last is its last."""


class Span:
    """The candles that a unit is evaluated on.

    Args:
        bars: oldest first, those before the range included: from `block_start` on and `window` - 1 before that, or all
            that the series has.
        first: place of the first candle of the range.
        window: candles of a worker's window.
        cached_bytes: indicators that are kept for the next strategy.
    """

    def __init__(self, bars: Bars, first: int, window: int, cached_bytes: int) -> None:
        self.bars = bars
        self.first = first
        self.window = window
        self._cached_bytes = cached_bytes
        self._caches: dict[tuple[int, int], IndicatorCache] = {}

    def __len__(self) -> int:
        return len(self.bars) - self.first

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of the range, oldest first."""
        self._forget_if_large()
        length_ms = block_ms(self.bars.timeframe)
        numbers = self.bars.open_time // length_ms
        edges = np.flatnonzero(np.diff(numbers)) + 1
        for begin, end in zip((0, *edges), (*edges, len(self.bars)), strict=True):
            if end > self.first:
                start = max(0, int(begin) - self.window + 1)
                yield Block(self._indicators(start, int(end)), start, max(int(begin), self.first))

    def window_until(self, place: int) -> Bars:
        """Return the window that ends with a candle, as a worker has it."""
        return self.bars.first(place + 1).last(self.window)

    def forget_indicators(self) -> None:
        """Let go of what was computed for other strategies."""
        self._caches.clear()

    def _indicators(self, start: int, end: int) -> IndicatorCache:
        place = start, end
        if place not in self._caches:
            self._caches[place] = IndicatorCache(self.bars.first(end).last(end - start))
        return self._caches[place]

    def _forget_if_large(self) -> None:
        cells = sum(len(cache) * len(cache.bars) for cache in self._caches.values())
        if cells * _BYTES_A_CELL > self._cached_bytes:
            self.forget_indicators()


def block_ms(timeframe: Timeframe) -> int:
    """Return how much time a block covers, milliseconds."""
    return BLOCK * round(timeframe.duration.total_seconds() * 1000)


def block_start(from_ms: int, timeframe: Timeframe) -> int:
    """Return where the block begins that a moment is in; both epoch ms."""
    return from_ms // block_ms(timeframe) * block_ms(timeframe)
