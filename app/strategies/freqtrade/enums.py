"""Words that strategies compare with."""

from __future__ import annotations

from enum import StrEnum


class RunMode(StrEnum):
    """What a strategy is run for."""

    LIVE = "live"
    DRY_RUN = "dry_run"
    BACKTEST = "backtest"
    HYPEROPT = "hyperopt"
    PLOT = "plot"
    OTHER = "other"


class CandleType(StrEnum):
    """Which market candles come from."""

    SPOT = "spot"
    FUTURES = "futures"
    MARK = "mark"
    FUNDING_RATE = "funding_rate"


class TradingMode(StrEnum):
    """Which market orders go to."""

    SPOT = "spot"
    MARGIN = "margin"
    FUTURES = "futures"
