# mypy: ignore-errors
"""A strategy for freqtrade's interface, as a quant keeps it in a package of their own."""

from freqtrade.strategy import IntParameter, IStrategy
from pandas import DataFrame
from talib import abstract as ta


class Channel(IStrategy):
    """Long above the channel of the candles before, short below it."""

    INTERFACE_VERSION = 3
    timeframe = "1h"
    stoploss = -0.08
    minimal_roi = {"0": 0.2}  # noqa: RUF012
    startup_candle_count = 40
    can_short = True
    buy_period = IntParameter(5, 40, default=10)

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        period = self.buy_period.value
        dataframe["top"] = ta.MAX(dataframe, timeperiod=period, price="high").shift(1)
        dataframe["bottom"] = ta.MIN(dataframe, timeperiod=period, price="low").shift(1)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        dataframe.loc[dataframe["close"] > dataframe["top"], ["enter_long", "enter_tag"]] = (1, "above")
        dataframe.loc[dataframe["close"] < dataframe["bottom"], ["enter_short", "enter_tag"]] = (1, "below")
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        return dataframe

    def confirm_trade_entry(self, *args, **kwargs) -> bool:
        return True


class AsksForTrades(Channel):
    """Loads, and then asks for what is not there."""

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        self.dp.orderbook(metadata["pair"], 1)
        return dataframe
