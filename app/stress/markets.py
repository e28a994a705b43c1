"""The markets of a stress test: stretches of a few long series, written into Postgres before the clock starts.

Ten thousand independent walks would take minutes to generate. So some long series are cut into overlapping stretches,
each of which is a market: its prices are those of its series at another time, all of them end at the same moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from psycopg import Connection as DriverConnection

from app.domain.candles import Candle, Timeframe
from app.errors import ConfigurationError, FeedError
from app.feeds.generated import GeneratedFeed
from app.feeds.replay import ReplayFeed
from app.storage.copying import build_rows, copy_rows, floats, moments, word
from app.strategies.bars import Bars

#: Generated series, and candles between the ends of two stretches of one: neighbours differ, and 10,000 fit.
WALKS, STEP = 200, 16
#: Generated candles are daily: their edges are then of the size that a selection asks for.
GENERATED = Timeframe.D1
SEED = 7
START = datetime(2000, 1, 1, tzinfo=UTC)
#: Newest candles of a series in files that are used.
MOST_CANDLES = 20_000
#: Candles of a market beside those that are read: a market has a past.
SPARE = 32
#: Markets written in one COPY.
_MARKETS = 500

_COLUMNS = ("symbol", "timeframe", "open_time", "open", "high", "low", "close", "volume", "source")
_SERIES = """
    INSERT INTO series (symbol, timeframe, last_open_time)
    SELECT symbol, %(timeframe)s, %(last)s FROM unnest(%(symbols)s::text[]) AS symbol
"""


class Markets(NamedTuple):
    """What was written."""

    symbols: Sequence[str]
    timeframe: Timeframe
    candles: int
    """Of each."""
    until: datetime
    """When the last candle of each closes."""
    source: str


def load_series(data: Path | None, markets: int, candles: int) -> tuple[list[Bars], str]:
    """Load what markets are cut from.

    Args:
        data: candle files; None generates.
        markets: how many are wanted.
        candles: of each at most; generated series are long enough.

    Returns:
        Series of one timeframe, and where they came from.

    Raises:
        ConfigurationError: there are no files, or none with a candle that can be read.
    """
    if data is None:
        return _generate(markets, candles), f"generated:seed={SEED}"
    feed = ReplayFeed([data])
    series: dict[tuple[str, Timeframe], deque[Candle]] = {}
    try:
        for candle in (candle for batch in feed.batches() for candle in batch):
            series.setdefault((candle.symbol, candle.timeframe), deque(maxlen=MOST_CANDLES)).append(candle)
    except FeedError as error:
        raise ConfigurationError(f"--data: {error}") from error
    if not series:
        raise ConfigurationError(
            f"--data {data}: expected files with candles, found none that can be read (docs/feeds.md)"
        )
    timeframes = [timeframe for _, timeframe in series]
    usual = max(dict.fromkeys(timeframes), key=timeframes.count)
    wanted = (each for (_, timeframe), each in series.items() if timeframe is usual)
    return [Bars.from_candles(list(each)) for each in wanted], feed.source


def _generate(markets: int, candles: int) -> list[Bars]:
    names = [f"GEN{number:03d}-USD" for number in range(min(WALKS, markets))]
    length = candles + STEP * (-(-markets // len(names)) - 1)
    batches = GeneratedFeed(names, GENERATED, length, SEED, START).batches()
    return [Bars.from_candles(series) for series in zip(*batches, strict=True)]


def write_markets(
    driver: DriverConnection[tuple[object, ...]], series: Sequence[Bars], markets: int, candles: int, source: str
) -> Markets:
    """Write markets, each series in turn giving its next stretch.

    Args:
        driver: of psycopg.
        series: as loaded.
        markets: how many.
        candles: of each.
        source: of the series.

    Raises:
        ConfigurationError: no series is long enough.
    """
    long = [each for each in series if len(each) >= candles]
    if not long:
        most = max(len(each) for each in series)
        raise ConfigurationError(f"{source}: expected a series of {candles} candles or more, found {most} at most")
    timeframe = series[0].timeframe
    last_ms = max(int(each.open_time[-1]) for each in series)
    step_ms = round(timeframe.duration.total_seconds() * 1000)
    opened_ms = last_ms - step_ms * np.arange(candles - 1, -1, -1, dtype=np.int64)
    stretches = _cut(long, markets, candles)
    symbols: list[str] = []
    while part := list(islice(stretches, _MARKETS)):
        symbols += [symbol for symbol, _ in part]
        copy_rows(driver, "candles", _COLUMNS, [_rows(*each, opened_ms, source) for each in part])
    last = datetime.fromtimestamp(last_ms / 1000, UTC)
    driver.execute(_SERIES, {"timeframe": timeframe.value, "last": last, "symbols": symbols})
    driver.execute("VACUUM (ANALYZE) candles")
    return Markets(symbols, timeframe, candles, last + timeframe.duration, source)


def _cut(series: Sequence[Bars], markets: int, candles: int) -> Iterator[tuple[str, Bars]]:
    for number in range(markets):
        turn, place = divmod(number, len(series))
        bars = series[place]
        end = len(bars) - turn * STEP % (len(bars) - candles + 1)  # a short series begins anew
        yield f"{bars.symbol}-{turn:04d}", bars.first(end).last(candles)


def _rows(symbol: str, bars: Bars, opened_ms: np.typing.NDArray[np.int64], source: str) -> bytes:
    numbers = map(floats, (bars.open, bars.high, bars.low, bars.close, bars.volume))
    names = word(symbol), word(bars.timeframe.value)
    return build_rows(len(bars), (*names, moments(opened_ms), *numbers, word(source)))
