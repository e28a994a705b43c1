"""Asking an analyzer about every candle of a window, and the check of its answer."""

from __future__ import annotations

import numpy as np

from app.domain.jobs import Signal
from app.errors import InvalidSignalError
from app.strategies.bars import Bars, FloatArray
from app.strategies.evaluation import ask_about_last, check_columns, describe_candle
from app.strategies.sdk import Context, Lines, Signals, Strategy


def ask_all(strategy: Strategy, bars: Bars, lines: Lines, *, since: int) -> Signals:
    """Return what a strategy says about every candle; flat where it says nothing that could be meant.

    One that is asked candle by candle is asked about each in turn, which takes as long as it sounds.

    Args:
        strategy: the analyzer.
        bars: the window.
        lines: its own declared indicators.
        since: how many candles before the last one count; their answers must be right.

    Raises:
        InvalidSignalError: an answer of the wrong type, shape or dtype, or one that counts and is out of range.
    """
    if strategy.vectorised:
        answer: object = strategy.signals(bars, lines)
        checked = check_columns(strategy, bars, answer)
    else:
        checked = _ask_in_turn(strategy, bars, lines)
    is_view = (np.abs(checked.action) <= 1) & (checked.strength >= 0.0) & (checked.strength <= 1.0)
    wrong = np.flatnonzero(~is_view[-1 - since :])
    if wrong.size:
        place = max(0, len(bars) - 1 - since) + int(wrong[0])
        raise InvalidSignalError(
            f"strategy {strategy.name!r} on {describe_candle(bars, place)}: expected action -1, 0 or 1 and strength "
            f"0 to 1, found {checked.action[place]} and {checked.strength[place]!r}"
        )
    return checked._replace(
        action=np.where(is_view, checked.action, 0).astype(np.int8), strength=np.where(is_view, checked.strength, 0.0)
    )


def _ask_in_turn(strategy: Strategy, bars: Bars, lines: Lines) -> Signals:
    first = strategy.warmups[bars.timeframe]
    said = [Signal(action=0, strength=0.0)] * min(first - 1, len(bars))
    for count in range(first, len(bars) + 1):
        part = bars.first(count)
        context = Context(part, {name: line[:count] for name, line in lines.items()}, count - 1)
        said.append(ask_about_last(strategy, part, context))
    action = np.array([signal.action for signal in said], np.int8)
    strength = np.array([signal.strength for signal in said], np.float64)
    return Signals(action, strength, _column(said, "edge"), _column(said, "stop"), _column(said, "target"))


def _column(said: list[Signal], name: str) -> FloatArray:
    values = [getattr(signal, name) for signal in said]
    return np.array([np.nan if value is None else value for value in values], np.float64)
