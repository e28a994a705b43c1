"""Bars: a window of candles as read-only arrays. Knows nothing of indicators, strategies or where candles come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from app.domain.candles import Candle, Timeframe

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_FLOATS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """A window of candles of one symbol and timeframe, oldest first.

    Every array is (n,) and contiguous; an array that is so already is shared, not copied, so its owner must
    leave it alone while the bars live. The arrays are read-only: a strategy cannot change what its neighbours see.
    Nothing is validated but shape and type; the candles were validated when they were built.

    Args:
        symbol: as in Candle.
        timeframe: as in Candle.
        open_time: (n,) int64, epoch milliseconds UTC.
        open: (n,) float64, quote currency; so are high, low and close.
        high: see open.
        low: see open.
        close: see open.
        volume: (n,) float64, base units.

    Raises:
        ValueError: arrays of different length, or not one-dimensional.
    """

    symbol: str
    timeframe: Timeframe
    open_time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    def __post_init__(self) -> None:
        shape = (len(self.open_time),)
        for name in ("open_time", *_FLOATS):
            values = getattr(self, name)
            shared = _shared(values, np.int64 if name == "open_time" else np.float64, name, shape)
            if shared is not values:
                object.__setattr__(self, name, shared)

    def __len__(self) -> int:
        return len(self.close)

    @classmethod
    def from_candles(cls, candles: Sequence[Candle]) -> Self:
        """Build bars from at least one candle of one symbol and timeframe, oldest first.

        Raises:
            ValueError: no candle at all.
        """
        if not candles:
            raise ValueError("expected at least one candle, found none")
        columns = (np.array([getattr(candle, name) for candle in candles], np.float64) for name in _FLOATS)
        times = np.array([round(candle.open_time.timestamp() * 1000) for candle in candles], np.int64)
        return cls(candles[0].symbol, candles[0].timeframe, times, *columns)

    def last(self, count: int) -> Self:
        """Return the newest `count` candles (all of them when there are fewer); nothing is copied."""
        return self._slice(slice(max(len(self) - count, 0), None))

    def first(self, count: int) -> Self:
        """Return the oldest `count` candles (all of them when there are fewer); nothing is copied."""
        return self._slice(slice(0, max(count, 0)))

    def _slice(self, part: slice) -> Self:
        columns = (getattr(self, name)[part] for name in _FLOATS)
        return type(self)(self.symbol, self.timeframe, self.open_time[part], *columns)


def _shared(values: Any, dtype: type[np.generic], name: str, shape: tuple[int]) -> npt.NDArray[Any]:
    array = values if _is_settled(values, dtype) else np.ascontiguousarray(values, dtype).view()
    if array.shape != shape:
        raise ValueError(f"expected {name} of shape {shape} like open_time, found {array.shape}")
    if array is not values:
        array.setflags(write=False)
    return array


def _is_settled(values: Any, dtype: type[np.generic]) -> bool:
    """Tell whether values are a read-only view already: making one of each column costs more than an indicator."""
    if type(values) is not np.ndarray or values.dtype != dtype or values.base is None:
        return False
    flags = values.flags
    return flags.c_contiguous and not flags.writeable
