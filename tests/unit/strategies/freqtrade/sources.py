"""Strategy files as a quant would have them, and how a test loads one."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

from app.strategies.freqtrade.loading import Source, load_file

HEAD = """
from freqtrade.strategy import IStrategy
from pandas import DataFrame
import numpy as np
import talib.abstract as ta
import freqtrade.vendor.qtpylib.indicators as qtpylib
"""

TREND = HEAD + (
    """
class Trend(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1h"
    stoploss = -0.1
    minimal_roi = {"60": 0.01, "0": 0.04}
    startup_candle_count = 60
    trailing_stop = True
    trailing_stop_positive = 0.01

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        dataframe["fast"] = ta.EMA(dataframe, timeperiod=5)
        dataframe["slow"] = ta.EMA(dataframe, timeperiod=15)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        up = qtpylib.crossed_above(dataframe["fast"], dataframe["slow"])
        dataframe.loc[up & (dataframe["volume"] > 0), ["enter_long", "enter_tag"]] = (1, "up")
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        dataframe.loc[qtpylib.crossed_below(dataframe["fast"], dataframe["slow"]), "exit_long"] = 1
        return dataframe

    def custom_exit(self, pair, trade: "Trade", current_time, current_rate, current_profit, **kwargs):
        return "never asked"
"""
)


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    """Write a strategy file."""
    path = folder / name
    path.write_text(dedent(text))
    return path


def strategy(
    folder: Path, *, indicators: str = "", entry: str = "", leave: str = "", body: str = "", head: str = ""
) -> Source:
    """Load a strategy made of the bodies of its methods; each sees `df` and `self` and returns `df`."""
    methods = {"populate_indicators": indicators, "populate_entry_trend": entry, "populate_exit_trend": leave}
    written_methods = "".join(
        f"    def {name}(self, df, metadata):\n{indent(dedent(code).strip() or 'pass', ' ' * 8)}\n        return df\n"
        for name, code in methods.items()
    )
    attributes = indent(dedent(body).strip(), "    ")
    text = f'{HEAD}{dedent(head)}\nclass Mine(IStrategy):\n    stoploss = -0.1\n    timeframe = "1h"\n{attributes}\n'
    return load_file(written(folder, text + written_methods))
