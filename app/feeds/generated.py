"""Generated candles for demonstrations and load: a seeded random walk, never to be taken for a market.

The walk is geometric, its volatility clusters (calm and nervous stretches), ranges and volume grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from app.domain.candles import Candle, Timeframe
from app.errors import ConfigurationError
from app.feeds.base import FeedReport
from app.feeds.files.faults import FloatArray

#: Candles made at once: the walk goes on from chunk to chunk, so memory does not grow with `count`.
_CHUNK = 1_024
#: Long-run standard deviation of the log return of one minute; a longer candle has it times sqrt(minutes).
_MINUTE_VOLATILITY = 0.0008
#: Share of the last candle's log volatility that stays: calm and nervous stretches of some fifty candles.
_PERSISTENCE = 0.98
#: Standard deviation of the shock to log volatility.
_VOLATILITY_SHOCK = 0.12
#: Bounds of log volatility around its long-run level: no candle moves hundreds of percent.
_VOLATILITY_BOUND = 1.5
#: Volume in base units at a price of 1 in a calm candle: turnover is alike for cheap and dear symbols.
_TURNOVER = 100_000.0
#: Significant digits of a price: enough for a cheap symbol, and a price that reads like one.
_DIGITS = 6


class GeneratedFeed:
    """A seeded geometric random walk with volatility clustering, the same on every machine.

    Args:
        symbols: one independent walk each; what a symbol gets does not depend on the others.
        timeframe: of all candles.
        count: candles per symbol.
        seed: the same seed, the same candles.
        start: open time of the first candle, aware, on the timeframe's grid.

    Raises:
        ConfigurationError: no symbol, a repeated one, count below 1 or a start off the grid.
    """

    def __init__(self, symbols: Sequence[str], timeframe: Timeframe, count: int, seed: int, start: datetime) -> None:
        self._symbols = sorted(symbols)
        self._timeframe = timeframe
        self._count = count
        self._seed = seed
        self._start = start
        self._report = FeedReport()
        self._check()

    @property
    def source(self) -> str:
        """``generated:seed=N``."""
        return f"generated:seed={self._seed}"

    @property
    def report(self) -> FeedReport:
        """What was handed on, up to now; a generated candle is never refused."""
        return self._report

    @property
    def can_wait(self) -> bool:
        """Always: it makes a candle when it is asked for one."""
        return True

    def progress(self) -> float:
        """Fraction of all candles that are handed on, 0 to 1."""
        return min(1.0, self._report.accepted / (self._count * len(self._symbols)))

    def batches(self) -> Iterator[list[Candle]]:
        """Yield one candle of every symbol per close time, close times ascending."""
        walks = [self._walk(symbol) for symbol in self._symbols]
        for candles in zip(*walks, strict=True):
            self._report.accepted += len(candles)
            yield list(candles)

    def _walk(self, symbol: str) -> Iterator[Candle]:
        random = np.random.Generator(np.random.PCG64([self._seed, *symbol.encode()]))
        state = _State(price=float(np.exp(random.uniform(0.0, 9.0))), log_volatility=0.0)
        for first in range(0, self._count, _CHUNK):
            size = min(_CHUNK, self._count - first)
            columns, state = _build_chunk(random, state, self._timeframe)
            for index in range(size):
                yield self._build(symbol, first + index, [float(column[index]) for column in columns])

    def _build(self, symbol: str, index: int, values: list[float]) -> Candle:
        open_, high, low, close, volume = values
        return Candle(
            symbol=symbol,
            timeframe=self._timeframe,
            open_time=self._start + index * self._timeframe.duration,
            open=open_,
            high=high,
            low=low,
            close=close,
            volume=volume,
        )

    def _check(self) -> None:
        if not self._symbols or len(set(self._symbols)) < len(self._symbols):
            raise ConfigurationError(f"symbols: expected one or more different symbols, found {self._symbols}")
        if self._count < 1 or self._seed < 0:
            raise ConfigurationError(f"expected count >= 1 and seed >= 0, found {self._count} and {self._seed}")
        if self._start.tzinfo is None or not self._timeframe.is_on_grid(self._start):
            found = self._start.isoformat()
            raise ConfigurationError(f"start: expected an aware time on the {self._timeframe} grid, found {found}")


class _State(NamedTuple):
    price: float
    log_volatility: float


def _build_chunk(
    random: np.random.Generator, state: _State, timeframe: Timeframe
) -> tuple[tuple[FloatArray, ...], _State]:
    scale = _MINUTE_VOLATILITY * np.sqrt(timeframe.duration.total_seconds() / 60)
    log_volatility = _cluster(random.normal(0.0, _VOLATILITY_SHOCK, _CHUNK), state.log_volatility)
    sigma = scale * np.exp(log_volatility)
    returns = sigma * random.standard_normal(_CHUNK)
    edges = _round(state.price * np.exp(np.concatenate([[0.0], np.cumsum(returns)])))
    open_, close = edges[:-1], edges[1:]
    above, below = sigma * random.exponential(0.5, (2, _CHUNK))
    high = np.maximum(_round(np.maximum(open_, close) * np.exp(above)), np.maximum(open_, close))
    low = np.minimum(_round(np.minimum(open_, close) * np.exp(-below)), np.minimum(open_, close))
    liveliness = (0.5 + np.abs(returns) / scale) * random.lognormal(0.0, 0.5, _CHUNK)
    volume = _round(_TURNOVER / open_ * liveliness)
    return (open_, high, low, close, volume), _State(float(edges[-1]), float(log_volatility[-1]))


def _cluster(shocks: FloatArray, level: float) -> FloatArray:
    path = np.empty_like(shocks)
    for index, shock in enumerate(shocks.tolist()):
        level = min(_VOLATILITY_BOUND, max(-_VOLATILITY_BOUND, _PERSISTENCE * level + shock))
        path[index] = level
    return path


def _round(values: FloatArray) -> FloatArray:
    return np.array([float(f"{value:.{_DIGITS}g}") for value in values.tolist()], dtype=np.float64)
