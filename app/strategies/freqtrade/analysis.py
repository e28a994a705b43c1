"""Analysis: one strategy over the candles of one pair, its columns read cell by cell.

Whole files and the windows of single candles take the same way. A strategy is created anew for every analysis, so
nothing it keeps on itself outlives one.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pandas import DataFrame, Series

from app.errors import ConfigurationError, StrategyError
from app.strategies.bars import Bars, IntArray
from app.strategies.freqtrade.enums import RunMode
from app.strategies.freqtrade.frame import build_frame, grid
from app.strategies.freqtrade.informative import Informative, informative_methods, merge_closed
from app.strategies.freqtrade.interface import IStrategy
from app.strategies.freqtrade.loading import Source, build_config, create
from app.strategies.freqtrade.provider import DataProvider
from app.strategies.freqtrade.standins import standing_in
from app.strategies.freqtrade.timeframes import timeframe_to_seconds

CellArray = npt.NDArray[np.bool_]
Tags = tuple[str | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """The signals of every row, oldest first: candles, and the flat ones that fill gaps between them.

    A cell counts when it equals 1; a missing column counts nowhere. Nothing is shifted: a row's signals are known
    when its candle has closed.
    """

    open_time: IntArray
    """(n,) int64, epoch milliseconds UTC."""
    places: IntArray
    """Which rows are candles; the others fill gaps."""
    enter_long: CellArray
    exit_long: CellArray
    enter_short: CellArray
    exit_short: CellArray
    enter_tag: Tags
    exit_tag: Tags
    startup: int
    """Rows at the start that the strategy calls its start-up; their signals are there but not to be used."""
    strategy: IStrategy
    """The instance that answered, with the values that were in force."""
    warnings: tuple[str, ...]
    """What Python and pandas warned of while the strategy ran, each once."""

    @property
    def action(self) -> npt.NDArray[np.int8]:
        """(n,) int8: 1 where a long entry counts, -1 where a short one does, else 0.

        An entry counts when neither its own exit nor the other side's entry stands beside it; a short one only when
        the strategy can go short.
        """
        long = self.enter_long & ~self.exit_long & ~self.enter_short
        short = self.enter_short & ~self.exit_short & ~self.enter_long & bool(self.strategy.can_short)
        return long.astype(np.int8) - short.astype(np.int8)


class _Call(NamedTuple):
    """What is being run, for errors to name."""

    strategy: str
    candle: str


def analyse(
    source: Source, bars: Bars, values: Mapping[str, Any] | None = None, runmode: RunMode = RunMode.BACKTEST
) -> Analysis:
    """Run a strategy over candles and read its columns, as a backtest's analysis does.

    Args:
        source: the strategy.
        bars: the candles, oldest first, at least one; their timeframe is the one in force.
        values: parameter values over those in force, by attribute name.
        runmode: what the strategy is told it is run for.

    Raises:
        ConfigurationError: the strategy asks for something that is not offered.
        StrategyError: the strategy raised, or its answer is not the frame it was given with columns added.
        ValueError: no candle, or candles out of order.
    """
    if not len(bars):
        raise ValueError("expected at least one candle, found none")
    frame, call = build_frame(bars), _Call(source.name, _candle(bars))
    with standing_in(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        strategy, answer = _run(source, bars, frame, values or {}, runmode, call)
    _check_answer(answer, frame, call)
    said = tuple(dict.fromkeys(f"{one.category.__name__}: {one.message}" for one in caught))
    return _read(answer, bars, strategy, said, call)


def pair_of(symbol: str) -> str:
    """Return a symbol as strategies know it: ``BTC-USDT`` is ``BTC/USDT``."""
    base, dash, quote = symbol.rpartition("-")
    return f"{base}/{quote}" if dash else symbol


def _run(
    source: Source, bars: Bars, frame: DataFrame, values: Mapping[str, Any], runmode: RunMode, call: _Call
) -> tuple[IStrategy, DataFrame]:
    pair, timeframe = pair_of(bars.symbol), str(bars.timeframe.value)
    dp = DataProvider(pair, timeframe, frame, runmode)
    config = build_config(source, pair, timeframe, runmode)
    strategy: IStrategy = _calling(call, "creating it", lambda: create(source, values, dp, config))
    metadata = {"pair": pair}
    answer = frame.copy()
    for informative in informative_methods(source.cls):
        answer = _calling(call, informative.populate.__name__, _merging(strategy, informative, answer, pair))
    answer = _populated(call, strategy.populate_indicators, answer, metadata)
    answer["enter_tag"] = ""
    answer = _populated(call, strategy.populate_entry_trend, answer, metadata)
    answer["exit_tag"] = ""
    return strategy, _populated(call, strategy.populate_exit_trend, answer, metadata)


def _populated(call: _Call, populate: Callable[..., Any], frame: DataFrame, metadata: dict[str, str]) -> DataFrame:
    answer = _calling(call, populate.__name__, lambda: populate(frame, dict(metadata)))
    if not isinstance(answer, DataFrame):
        raise _fault(call, f"{populate.__name__}: expected the DataFrame back, found {type(answer).__name__}")
    return answer


def _merging(strategy: IStrategy, informative: Informative, frame: DataFrame, pair: str) -> Callable[[], DataFrame]:
    def merge() -> DataFrame:
        base, _, quote = pair.partition("/")
        asset = informative.pair({"pair": pair, "stake": quote, "base": base, "quote": quote})
        slow = strategy.dp.get_pair_dataframe(asset, informative.timeframe)
        made = informative.populate(strategy, slow, {"pair": asset, "timeframe": informative.timeframe})
        lag = timeframe_to_seconds(informative.timeframe) - timeframe_to_seconds(strategy.timeframe)
        closes = made["date"] + np.timedelta64(lag, "s")
        named = made.rename(columns=lambda name: informative.column(name, asset))
        twice = sorted(set(named.columns) & set(frame.columns))
        if twice:
            raise ValueError(f"expected new column names, found {', '.join(twice)} in the frame already")
        return merge_closed(frame, named, closes, ffill=informative.ffill)

    return merge


def _calling(call: _Call, what: str, run: Callable[[], Any]) -> Any:
    """Run user code; what it raises names strategy, candle and line, but memory that ran out stays what it is."""
    try:
        return run()
    except MemoryError:
        raise
    except ConfigurationError as error:
        text = f"strategy {call.strategy!r} on {call.candle}: {what}{_line(error)}: {error}"
        raise ConfigurationError(text) from error
    except (Exception, SystemExit) as error:
        raise _fault(call, f"{what}{_line(error)}: {type(error).__name__}: {error}") from error


def _line(error: BaseException) -> str:
    """Return the line of the strategy's file that raised: the last one outside of packages and of this one."""
    here = __file__.rpartition("/")[0]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith((here, "<"))
    ]
    return f" ({frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno})" if frames else ""


def _fault(call: _Call, text: str) -> StrategyError:
    return StrategyError(f"strategy {call.strategy!r} on {call.candle}: {text}")


def _candle(bars: Bars) -> str:
    opened = datetime.fromtimestamp(bars.open_time[-1].item() / 1000, UTC).isoformat()
    return f"{bars.symbol} {bars.timeframe} candle opened {opened}"


def _check_answer(answer: DataFrame, frame: DataFrame, call: _Call) -> None:
    if len(answer) != len(frame):
        raise _fault(call, f"expected as many rows as candles, {len(frame)}, found {len(answer)}")
    for name in ("date", "close"):
        if name not in answer.columns:
            raise _fault(call, f"expected the column {name} to be left in the frame, found it gone")
        expected, found = frame[name].iloc[-1], answer[name].iloc[-1]
        if not _is_same(expected, found):
            raise _fault(call, f"expected the last {name} to stay {expected}, found {found}")


def _is_same(expected: object, found: object) -> bool:
    try:
        return bool(expected == found)
    except (TypeError, ValueError):
        return False


def _read(answer: DataFrame, bars: Bars, strategy: IStrategy, said: tuple[str, ...], call: _Call) -> Analysis:
    times, places = grid(bars)
    columns = {name: _column(answer, name, call) for name in _SIGNALS + _TAGS}
    return Analysis(
        open_time=times,
        places=places,
        **{name: _cells(columns[name], len(times)) for name in _SIGNALS},
        enter_tag=_tags(columns["enter_tag"], len(times)),
        exit_tag=_tags(columns["exit_tag"], len(times)),
        startup=strategy.startup_candle_count,
        strategy=strategy,
        warnings=said,
    )


_SIGNALS = ("enter_long", "exit_long", "enter_short", "exit_short")
_TAGS = ("enter_tag", "exit_tag")


def _column(answer: DataFrame, name: str, call: _Call) -> Series | None:
    if name not in answer.columns:
        return None
    column = answer[name]
    if isinstance(column, DataFrame):
        raise _fault(call, f"expected one column {name}, found {column.shape[1]} of that name")
    return column


def _cells(column: Series | None, count: int) -> CellArray:
    if column is None:
        return np.zeros(count, np.bool_)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return np.asarray(column.to_numpy() == 1)
    return np.array([_is_same(1, cell) for cell in column], np.bool_)


def _tags(column: Series | None, count: int) -> Tags:
    if column is None:
        return (None,) * count
    return tuple(cell if isinstance(cell, str) and cell else None for cell in column)
