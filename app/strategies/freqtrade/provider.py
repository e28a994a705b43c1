"""DataProvider: what a strategy reaches as `self.dp`. It knows the candles at hand and nothing else."""

from __future__ import annotations

from typing import Any

from pandas import DataFrame

from app.errors import ConfigurationError
from app.strategies.freqtrade.enums import RunMode
from app.strategies.freqtrade.frame import resample


class DataProvider:
    """The same pair in its own timeframe or a slower one; everything else is refused by name.

    Args:
        pair: such as ``BTC/USDT``.
        timeframe: of the frame.
        frame: the candles, which are copied before they are handed out.
        runmode: whether the whole of a file is analysed or the window of one candle.
    """

    def __init__(self, pair: str, timeframe: str, frame: DataFrame, runmode: RunMode) -> None:
        self.runmode = runmode
        self._pair = pair
        self._timeframe = timeframe
        self._frame = frame

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise ConfigurationError(f"dp.{name} is not offered; dp has {_offered()}")

    @property
    def available_pairs(self) -> list[tuple[str, str]]:
        """The pair and its timeframe."""
        return [(self._pair, self._timeframe)]

    def current_whitelist(self) -> list[str]:
        """Return the pair at hand as the only one there is."""
        return [self._pair]

    def market(self, pair: str) -> dict[str, str]:
        """Return what a pair is made of."""
        base, _, quote = pair.partition("/")
        return {"symbol": pair, "base": base, "quote": quote.partition(":")[0]}

    def get_pair_dataframe(self, pair: str, timeframe: str | None = None, candle_type: Any = "") -> DataFrame:
        """Return the candles of the pair in a timeframe that is a multiple of the frame's.

        Raises:
            ConfigurationError: another pair, or a timeframe that cannot be made.
        """
        del candle_type
        wanted = timeframe or self._timeframe
        if pair != self._pair:
            raise ConfigurationError(
                f"candles of {pair} ({wanted}) are not offered; only {self._pair}, in {self._timeframe} and slower"
            )
        try:
            return resample(self._frame, self._timeframe, wanted)
        except ValueError as error:
            raise ConfigurationError(f"candles of {pair} in {wanted} cannot be made: {error}") from error

    ohlcv = historic_ohlcv = get_pair_dataframe

    def send_msg(self, *_: Any, **__: Any) -> None:
        """Say nothing to nobody: there is no messenger."""


def _offered() -> str:
    return ", ".join([*sorted(name for name in vars(DataProvider) if not name.startswith("_")), "runmode"])
