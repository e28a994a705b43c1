"""Slower series beside the frame: the decorator that declares them and the merge that lets no future through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas import DataFrame

from app.strategies.freqtrade.timeframes import timeframe_to_seconds

#: A method `populate_indicators_1h(self, dataframe, metadata)`.
Populate = Callable[[Any, DataFrame, dict[str, Any]], DataFrame]
#: How merged columns are called: a pattern, or a function of the same words.
Naming = str | Callable[..., str] | None

_DECLARED = "_candlefleet_informatives"


@dataclass(frozen=True, slots=True)
class Informative:
    """One declared series: which, what computes its columns, and how they are called in the frame."""

    timeframe: str
    asset: str
    naming: Naming
    ffill: bool
    populate: Populate

    def pair(self, words: dict[str, str]) -> str:
        """Return the pair it is of: the strategy's own unless an asset was named."""
        return self.asset.format(**words) if self.asset else words["pair"]

    def column(self, name: str, pair: str) -> str:
        """Return how a column is called in the frame."""
        base, _, quote = pair.partition("/")
        quote = quote.partition(":")[0]
        naming = self.naming or ("{base}_{quote}_{column}_{timeframe}" if self.asset else "{column}_{timeframe}")
        words = {"base": base.lower(), "quote": quote.lower(), "BASE": base.upper(), "QUOTE": quote.upper()}
        build = naming if callable(naming) else naming.format
        return str(build(column=name, timeframe=self.timeframe, asset=pair, **words))


def informative(
    timeframe: str, asset: str = "", fmt: Naming = None, *, candle_type: Any = None, ffill: bool = True, **_: Any
) -> Callable[[Populate], Populate]:
    """Declare that a method computes columns of a slower series, which are merged before `populate_indicators`.

    Args:
        timeframe: of the series, not faster than the strategy's.
        asset: a pair such as ``BTC/{stake}``; the strategy's own when empty.
        fmt: pattern or function for the columns' names.
        candle_type: accepted, without meaning: there is one kind of candles.
        ffill: whether a value holds until the next one.
    """
    del candle_type

    def decorate(populate: Populate) -> Populate:
        declared = [*getattr(populate, _DECLARED, ()), Informative(timeframe, asset, fmt, ffill, populate)]
        setattr(populate, _DECLARED, declared)
        return populate

    return decorate


def informative_methods(cls: type) -> list[Informative]:
    """Return what a class declares, in the alphabetical order of its methods."""
    return [one for name in dir(cls) for one in getattr(getattr(cls, name, None), _DECLARED, ())]


def merge_informative_pair(
    dataframe: DataFrame,
    informative: DataFrame,
    timeframe: str,
    timeframe_inf: str,
    ffill: bool = True,
    append_timeframe: bool = True,
    date_column: str = "date",
    suffix: str | None = None,
) -> DataFrame:
    """Put a slower series beside a frame: a row sees the newest slow candle that has closed when the row closes.

    Args:
        dataframe: the frame, oldest first.
        informative: the slower series with its columns, oldest first.
        timeframe: of the frame.
        timeframe_inf: of the slower series.
        ffill: whether rows between two closes see the last one.
        append_timeframe: whether ``_1h`` is added to the slower columns' names.
        date_column: the open time in the slower series.
        suffix: added to the names instead.

    Raises:
        ValueError: the series is faster than the frame, or both namings are asked for.
    """
    lag = timeframe_to_seconds(timeframe_inf) - timeframe_to_seconds(timeframe)
    if lag < 0:
        raise ValueError(f"expected a series not faster than {timeframe}, found {timeframe_inf}")
    if suffix and append_timeframe:
        raise ValueError("expected a suffix or append_timeframe=True, found both")
    ending = suffix or (timeframe_inf if append_timeframe else "")
    slow = informative.rename(columns=lambda name: f"{name}_{ending}" if ending else name)
    closes = slow[f"{date_column}_{ending}" if ending else date_column] + pd.Timedelta(seconds=lag)
    return merge_closed(dataframe, slow, closes, ffill=ffill)


def merge_closed(frame: DataFrame, slow: DataFrame, closes: Any, *, ffill: bool) -> DataFrame:
    """Put columns beside a frame by the open time of the row that closes with each of them.

    Args:
        frame: with a column ``date``, oldest first.
        slow: the columns, oldest first, their names final.
        closes: for each of its rows the open time of the frame's row that closes at the same moment.
        ffill: whether rows in between see the last one.
    """
    key = "_closes_with"
    slow = slow.assign(**{key: pd.Series(closes, index=slow.index).astype(frame["date"].dtype)})
    if ffill:
        merged = pd.merge_asof(frame, slow, left_on="date", right_on=key)
    else:
        merged = frame.merge(slow, how="left", left_on="date", right_on=key)
    return merged.drop(columns=key)
