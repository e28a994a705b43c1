"""Evaluation: one strategy on the last candle of one window, and the check of its answer. The hot path.

Every evaluation is handed exactly the worker's window (the newest W candles), which is what makes signals repeatable.
What user code raises passes through unchanged; what it answers wrongly is an InvalidSignalError.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import numpy as np
from pydantic import ValidationError

from app.domain.base import explain
from app.domain.jobs import Signal
from app.errors import InvalidSignalError, StrategyError, TimeframeError, UnknownIndicatorError, did_you_mean
from app.strategies.bars import Bars
from app.strategies.indicators import IndicatorCache
from app.strategies.sdk import Context, Signals, Strategy

_INT8 = np.dtype(np.int8)
_FIELDS = tuple(Signal.model_fields)
_FLOAT64 = np.dtype(np.float64)


def evaluate(strategy: Strategy, bars: Bars, cache: IndicatorCache | None = None) -> Signal:
    """Ask a strategy about the last candle of a window. Repeatable: equal windows give bit-equal signals.

    Args:
        strategy: what to ask.
        bars: the window, oldest first.
        cache: the indicators of exactly these bars, shared with other strategies; None computes them for this call.

    Returns:
        The checked signal; a flat one has no stop and no target. While the window is too short it is flat, with
        ``extras={"warmup": candles still missing}``.

    Raises:
        UnknownIndicatorError: user code looked up a name that is no declared indicator.
        TimeframeError: the strategy has a higher timeframe that these candles cannot make.
        InvalidSignalError: the answer has the wrong type, shape, length, dtype or range; names strategy and candle.
        ValueError: the cache belongs to other bars.
    """
    if len(bars) < strategy.warmup:
        missing = _warmup(strategy, bars) - len(bars)
        if missing > 0:
            return Signal(action=0, strength=0.0, extras={"warmup": missing})
    if cache is None:
        cache = IndicatorCache(bars)
    elif cache.bars is not bars:
        raise ValueError("expected the indicator cache of these very bars, found that of others")
    try:
        lines = cache.select(strategy.declared)
    except (StrategyError, TimeframeError) as error:
        raise type(error)(f"strategy {strategy.name!r} on {describe_candle(bars)}: {error}") from error
    try:
        if strategy.vectorised:
            return _last_signal(strategy, bars, strategy.signals(bars, lines))
        return ask_about_last(strategy, bars, Context(bars, lines, len(bars) - 1))
    except KeyError as error:
        raise _explained(strategy, bars, error) from error


def _warmup(strategy: Strategy, bars: Bars) -> int:
    try:
        return strategy.warmups.get(bars.timeframe) or strategy.candles_needed_on(bars.timeframe)
    except TimeframeError as error:
        raise TimeframeError(f"strategy {strategy.name!r} on {describe_candle(bars)}: {error}") from error


def _explained(strategy: Strategy, bars: Bars, error: KeyError) -> Exception:
    """Return what to raise for a key that is not there: it may have been meant as an indicator."""
    key = error.args[0] if error.args else None
    if not isinstance(key, str) or key in strategy.declared:
        return error
    who, declared = f"strategy {strategy.name!r} on {describe_candle(bars)}", did_you_mean(key, strategy.declared)
    return UnknownIndicatorError(f"{who}: expected a declared indicator, found {key!r}: {declared}")


def _last_signal(strategy: Strategy, bars: Bars, answer: object) -> Signal:
    if not isinstance(answer, Signals):
        raise _refusal(strategy, bars, "Signals from signals()", _kind(answer))
    action = _cell(strategy, bars, "action", answer.action, _INT8)
    strength = _cell(strategy, bars, "strength", answer.strength, _FLOAT64)
    _check_view(strategy, bars, action, strength)
    edge = _optional_cell(strategy, bars, "edge", answer.edge, -math.inf)
    stop = _optional_cell(strategy, bars, "stop", answer.stop, 0.0)
    target = _optional_cell(strategy, bars, "target", answer.target, 0.0)
    if action == 0:
        signal = Signal(action=0, strength=strength, edge=edge)
    else:
        signal = Signal(action=action, strength=strength, edge=edge, stop=stop, target=target)
    if answer.extras is None:
        return signal
    return _revalidated(strategy, bars, signal.model_copy(update={"extras": answer.extras}))


def check_columns(strategy: Strategy, bars: Bars, answer: object) -> Signals:
    """Return a vectorised answer if it has the right type, shapes and dtypes; what is in the cells is not looked at.

    Raises:
        InvalidSignalError: it has not; names strategy and candle.
    """
    if not isinstance(answer, Signals):
        raise _refusal(strategy, bars, "Signals from signals()", _kind(answer))
    for column, values in zip(Signals._fields, answer.columns, strict=False):
        if column == "action":
            _cell(strategy, bars, column, values, _INT8)
        elif values is not None or column == "strength":
            _cell(strategy, bars, column, values, _FLOAT64)
    return answer


def ask_about_last(strategy: Strategy, bars: Bars, context: Context) -> Signal:
    """Ask a strategy that is asked candle by candle, and check its answer.

    Raises:
        InvalidSignalError: the answer has the wrong type or range; names strategy and candle.
    """
    try:
        answer: object = strategy.on_candle(context)
    except ValidationError as error:
        if error.title != "Signal":
            raise
        raise _refusal(strategy, bars, "a valid Signal", explain(error)) from error
    if not isinstance(answer, Signal):
        raise _refusal(strategy, bars, "a Signal from on_candle()", _kind(answer))
    _check_view(strategy, bars, answer.action, answer.strength)
    return _revalidated(strategy, bars, answer)


def _revalidated(strategy: Strategy, bars: Bars, answer: Signal) -> Signal:
    """Return the signal once more through its validation, which `model_construct` goes around."""
    try:
        signal = Signal(**{name: getattr(answer, name) for name in _FIELDS})
    except (ValidationError, AttributeError) as error:
        found = explain(error) if isinstance(error, ValidationError) else str(error)
        raise _refusal(strategy, bars, "a valid Signal", found) from error
    if signal.extras and not _is_storable(signal.extras):
        raise _refusal(strategy, bars, "extras of Unicode text without NUL", repr(signal.extras)[:80])
    return signal


def _is_storable(extras: object) -> bool:
    # what Postgres takes as jsonb: no NUL, and no half of a surrogate pair
    text = json.dumps(extras, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\\u0000" not in text.replace("\\\\", "")  # an escaped backslash before u0000 is only text


def _cell(strategy: Strategy, bars: Bars, column: str, values: object, dtype: np.dtype[np.generic]) -> float:
    shape = bars.close.shape
    if not isinstance(values, np.ndarray) or values.dtype != dtype or values.shape != shape:
        raise _refusal(strategy, bars, f"{column} as {dtype} array of shape {shape}", _kind(values))
    return values.item(-1)  # type: ignore[no-any-return]  # a float or an int, by the dtype


def _optional_cell(strategy: Strategy, bars: Bars, column: str, values: object, above: float) -> float | None:
    if values is None:
        return None
    cell = _cell(strategy, bars, column, values, _FLOAT64)
    if cell != cell:  # NaN: not stated
        return None
    if not above < cell < math.inf:
        expected = "a finite number" if above < 0 else "a finite price above 0"
        raise _refusal(strategy, bars, f"{column} to be {expected}, or NaN for none", repr(cell))
    return cell


def _check_view(strategy: Strategy, bars: Bars, action: float, strength: float) -> None:
    if action not in (-1, 0, 1):
        raise _refusal(strategy, bars, "action to be -1, 0 or 1", repr(action))
    if not 0.0 <= strength <= 1.0:
        raise _refusal(strategy, bars, "strength to be 0 to 1", repr(strength))


def _refusal(strategy: Strategy, bars: Bars, expected: str, found: str) -> InvalidSignalError:
    text = f"strategy {strategy.name!r} on {describe_candle(bars)}: expected {expected}, found {found}"
    return InvalidSignalError(text)


def describe_candle(bars: Bars, place: int = -1) -> str:
    """Name a candle of a window for people."""
    opened = datetime.fromtimestamp(bars.open_time[place].item() / 1000, UTC).isoformat()
    return f"{bars.symbol} {bars.timeframe} candle opened {opened}"


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    return f"{type(value).__name__} {value!r:.80}"
