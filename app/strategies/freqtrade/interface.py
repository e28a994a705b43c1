"""IStrategy: the base that a strategy file derives from, with every attribute and method that it may rely on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pandas import DataFrame


class IStrategy:
    """Base of a strategy: three methods make its signals, everything else here is there to be read or inherited.

    Args:
        config: stake currency, timeframe and the like, as the adapter makes it.
    """

    INTERFACE_VERSION: int = 3
    timeframe: str
    stoploss: float
    minimal_roi: dict[Any, float] = {}  # noqa: RUF012  # strategies assign and annotate it as they like
    startup_candle_count: int = 0
    can_short: bool = False
    trailing_stop: bool = False
    trailing_stop_positive: float | None = None
    trailing_stop_positive_offset: float = 0.0
    trailing_only_offset_is_reached: bool = False
    use_custom_stoploss: bool = False
    use_exit_signal: bool = True
    exit_profit_only: bool = False
    exit_profit_offset: float = 0.0
    ignore_roi_if_entry_signal: bool = False
    ignore_buying_expired_candle_after: int = 0
    position_adjustment_enable: bool = False
    max_entry_position_adjustment: int = -1
    max_open_trades: float = -1
    process_only_new_candles: bool = True
    disable_dataframe_checks: bool = False
    order_types: dict[str, Any] = {}  # noqa: RUF012
    order_time_in_force: dict[str, str] = {}  # noqa: RUF012
    unfilledtimeout: dict[str, Any] = {}  # noqa: RUF012
    plot_config: dict[str, Any] = {}  # noqa: RUF012
    protections: Any = ()

    #: What the adapter sets before anything else is called.
    dp: Any = None
    wallets: Any = None

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def bot_start(self, **_options: Any) -> None:
        """Prepare: called once, before the parameters get their values."""

    def bot_loop_start(self, current_time: datetime, **_options: Any) -> None:
        """Prepare a round; never called here."""

    def informative_pairs(self) -> list[tuple[str, ...]]:
        """Name further series to load; here only slower ones of the same pair can be had."""
        return []

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Add columns to the frame; every strategy must define it."""
        raise NotImplementedError

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Set ``enter_long``, ``enter_short`` and ``enter_tag``; the old name is used when a strategy defines it."""
        return _renamed(self.populate_buy_trend(dataframe, metadata), {"buy": "enter_long", "buy_tag": "enter_tag"})

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Set ``exit_long``, ``exit_short`` and ``exit_tag``; the old name is used when a strategy defines it."""
        return _renamed(self.populate_sell_trend(dataframe, metadata), {"sell": "exit_long"})

    def populate_buy_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Set ``buy``: what version 2 of the interface had."""
        raise NotImplementedError

    def populate_sell_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Set ``sell``: what version 2 of the interface had."""
        raise NotImplementedError

    def version(self) -> str | None:
        """Return the strategy's own version, if it has one."""
        return None

    def get_strategy_name(self) -> str:
        """Return the name of the class."""
        return type(self).__name__


def _renamed(frame: Any, names: dict[str, str]) -> Any:
    if not isinstance(frame, DataFrame):
        return frame  # refused by whoever asked
    present = {old: new for old, new in names.items() if old in frame.columns}
    return frame.drop(columns=[new for new in present.values() if new in frame.columns]).rename(columns=present)
