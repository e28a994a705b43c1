"""A freqtrade strategy as one of our own: it answers for every candle of a window, and says what it leaves out.

Action 1 is a long entry that counts, -1 a short one, 0 everything else, exits included; the columns of the last
candle are in the extras. Stop and target are those of a position entered at the candle's close.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import structlog
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError, create_model

from app.strategies.bars import Bars, FloatArray
from app.strategies.freqtrade.analysis import Analysis, analyse
from app.strategies.freqtrade.enums import RunMode
from app.strategies.freqtrade.informative import informative_methods
from app.strategies.freqtrade.interface import IStrategy
from app.strategies.freqtrade.loading import Source, find_parameters, load_module, try_out
from app.strategies.freqtrade.parameters import BaseParameter, BooleanParameter, IntParameter, NumericParameter
from app.strategies.freqtrade.support import describe_unsupported
from app.strategies.freqtrade.timeframes import timeframe_to_seconds
from app.strategies.sdk import Lines, Signals, Strategy

log = structlog.get_logger()


class FreqtradeStrategy(Strategy):
    """Base of every adapted strategy; `adapt` derives one from a class."""

    #: The class it runs.
    source: ClassVar[Source]
    #: Candles that make one candle of the slowest series it asks for.
    slowest: ClassVar[int] = 1

    def __init__(self, params: Strategy.Params | None = None, *, name: str | None = None) -> None:
        super().__init__(params, name=name)
        if self.notes:
            log.warning("freqtrade strategy runs in part", strategy=self.name, left_out=self.notes)

    def candles_needed(self) -> int:
        """Return the start-up: in candles of the slowest series that the strategy asks for, at least one."""
        return max(1, self.source.cls.startup_candle_count * self.slowest)

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        """Analyse the window and read the cells of its candles."""
        del indicators
        analysis = analyse(self.source, bars, self.params.model_dump(), RunMode.DRY_RUN)
        action = analysis.action[analysis.places]
        stop, target = levels(analysis.strategy, bars.close, action.astype(np.float64))
        return Signals(action, np.abs(action).astype(np.float64), None, stop, target, _extras(analysis))


def load(module: str, name: str) -> type[Strategy]:
    """Load a strategy class of an importable module and adapt it. The caller has checked that it may be loaded.

    Raises:
        ConfigurationError: it cannot be imported, or is not a strategy that can be run.
    """
    return adapt(load_module(module, name))


def adapt(source: Source) -> type[FreqtradeStrategy]:
    """Derive a strategy of ours from a loaded class: its params are the parameters, with the values in force.

    What is not run here becomes its `notes`, which are logged with every instance.

    Raises:
        ConfigurationError: no instance of it can be created.
    """
    instance = try_out(source)
    body = {
        "__doc__": source.cls.__doc__,
        "__module__": source.cls.__module__,
        "source": source,
        "slowest": _slowest(instance),
        "notes": describe_unsupported(source.cls),
        "Params": _params(instance),
    }
    return cast("type[FreqtradeStrategy]", type(source.name, (FreqtradeStrategy,), body))


def levels(strategy: IStrategy, close: FloatArray, side: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Return stop and target of a position entered at the close: the stop loss, and the return asked for at once.

    Args:
        strategy: whose `stoploss` and `minimal_roi` hold.
        close: (n,) float64, quote currency.
        side: (n,) float64, 1 long, -1 short, 0 none.

    Returns:
        (n,) float64 each, quote currency, NaN where there is none; no target without a return at minute 0.
    """
    wanted = {str(minute): ratio for minute, ratio in strategy.minimal_roi.items()}.get("0")
    stop = _level(close, -side * abs(strategy.stoploss))
    return stop, _level(close, side * float(wanted)) if wanted else None


def _level(close: FloatArray, move: FloatArray) -> FloatArray:
    price = close * (1.0 + move)
    return np.where((move != 0.0) & (price > 0.0), price, np.nan)


def _extras(analysis: Analysis) -> dict[str, JsonValue]:
    strategy = analysis.strategy
    extras: dict[str, JsonValue] = {
        "enter_long": int(analysis.enter_long[-1]),
        "exit_long": int(analysis.exit_long[-1]),
        "enter_short": int(analysis.enter_short[-1]),
        "exit_short": int(analysis.exit_short[-1]),
    }
    tags = {"enter_tag": analysis.enter_tag[-1], "exit_tag": analysis.exit_tag[-1]}
    extras |= {name: tag for name, tag in tags.items() if tag is not None}
    if analysis.action[-1]:
        extras["minimal_roi"] = {str(minute): float(ratio) for minute, ratio in strategy.minimal_roi.items()}
        extras |= {"trailing": _trailing(strategy)} if strategy.trailing_stop else {}
    return extras


def _trailing(strategy: IStrategy) -> JsonValue:
    positive = strategy.trailing_stop_positive
    return {
        "positive": None if positive is None else float(positive),
        "offset": float(strategy.trailing_stop_positive_offset or 0.0),
        "only_offset_is_reached": bool(strategy.trailing_only_offset_is_reached),
    }


def _slowest(instance: IStrategy) -> int:
    """Return how many of the strategy's own candles the slowest series that it asks for takes."""
    own = getattr(type(instance), "timeframe", None)
    wanted = [one.timeframe for one in informative_methods(type(instance))]
    wanted += [str(pair[1]) for pair in instance.informative_pairs() or ()]
    return max(1, *(timeframe_to_seconds(one) // timeframe_to_seconds(own) for one in wanted)) if own and wanted else 1


def _params(instance: IStrategy) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (_type(parameter), parameter.value)
        for name, parameter in find_parameters(instance).items()
        if not (name.startswith("_") or hasattr(BaseModel, name)) and _is_json(parameter.value)
    }
    model: type[BaseModel] = create_model(
        f"{type(instance).__name__}Params",
        __base__=Strategy.Params,
        __module__=__name__,
        __doc__="Parameters of a freqtrade strategy, by attribute name.",
        **fields,
    )
    return model


def _type(parameter: BaseParameter) -> Any:
    """Return what a definition may give a parameter: its kind, or anything where its own value is not of its kind."""
    kinds: Mapping[type, Any] = {IntParameter: int, NumericParameter: float, BooleanParameter: bool}
    wanted: Any = next((kind for cls, kind in kinds.items() if isinstance(parameter, cls)), JsonValue)
    try:
        TypeAdapter(wanted).validate_python(parameter.value, strict=True)
    except ValidationError:
        return JsonValue
    return wanted


def _is_json(value: object) -> bool:
    try:
        TypeAdapter(JsonValue).validate_python(value)
    except ValidationError:
        return False
    return True
