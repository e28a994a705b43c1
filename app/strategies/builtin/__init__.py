"""The strategies that come with Candlefleet, one file each; BUILTINS is what the registry offers by short name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from app.strategies.builtin.adx_trend import AdxTrend
from app.strategies.builtin.atr_channel_breakout import AtrChannelBreakout
from app.strategies.builtin.bollinger_reversion import BollingerReversion
from app.strategies.builtin.donchian_breakout import DonchianBreakout
from app.strategies.builtin.ema_cross import EmaCross
from app.strategies.builtin.macd import Macd
from app.strategies.builtin.rsi_reversion import RsiReversion
from app.strategies.builtin.stochastic import Stochastic
from app.strategies.builtin.supertrend import Supertrend
from app.strategies.builtin.vwap_reversion import VwapReversion
from app.strategies.sdk import Strategy

BUILTINS: Mapping[str, type[Strategy]] = MappingProxyType(
    {
        "adx_trend": AdxTrend,
        "atr_channel_breakout": AtrChannelBreakout,
        "bollinger_reversion": BollingerReversion,
        "donchian_breakout": DonchianBreakout,
        "ema_cross": EmaCross,
        "macd": Macd,
        "rsi_reversion": RsiReversion,
        "stochastic": Stochastic,
        "supertrend": Supertrend,
        "vwap_reversion": VwapReversion,
    }
)
