"""Comparing two signals of one candle: which value differs, and by how much it may."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from app.domain.jobs import Signal
from app.strategies.bars import FloatArray
from app.strategies.sdk import Signals

#: Largest difference of two computations of one thing, relative to its size: sums in another order differ in their
#: last digits. Far above the rounding of float64 (2.2e-16) times the length of a window, far below any strength that
#: matters.
ROUNDING = 1e-7

BoolArray = npt.NDArray[np.bool_]

_OPTIONAL = ("edge", "stop", "target")


def find_difference(first: Signal, second: Signal) -> str | None:
    """Return the first value in which two signals differ, with both; None when they agree up to ROUNDING."""
    if first.action != second.action and max(first.strength, second.strength) > ROUNDING:
        return f"action {first.action} and {second.action}"
    for name in ("strength", *_OPTIONAL):
        one, two = getattr(first, name), getattr(second, name)
        if not is_close(one, two):
            return f"{name} {one!r} and {two!r}"
    return None if first.extras == second.extras else f"extras {first.extras!r:.80} and {second.extras!r:.80}"


def is_close(one: float | None, two: float | None) -> bool:
    """Tell whether two values agree up to ROUNDING; None agrees with None alone."""
    if one is None or two is None:
        return one is two
    return math.isclose(one, two, rel_tol=ROUNDING, abs_tol=ROUNDING)


def differing_cells(first: Signals, second: Signals, count: int) -> BoolArray:
    """Return for each of the first `count` candles whether two whole answers differ there: (count,) bool."""
    speaks = np.maximum(first.strength[:count], second.strength[:count]) > ROUNDING
    differs: BoolArray = (first.action[:count] != second.action[:count]) & speaks
    differs |= _apart(first.strength[:count], second.strength[:count])
    is_flat = (first.action[:count] == 0) & (second.action[:count] == 0)
    for name in _OPTIONAL:
        one, two = getattr(first, name), getattr(second, name)
        if one is None and two is None:
            continue
        if one is None or two is None:
            return np.ones(count, np.bool_)
        apart = _apart(one[:count], two[:count])
        # a flat signal has no stop and no target
        differs |= apart if name == "edge" else apart & ~is_flat
    return differs


def are_equal(first: Signals, second: Signals, start: int, end: int) -> bool:
    """Tell whether two whole answers are bit-equal in the cells from `start` up to `end`: the common case, quickly."""
    for one, two in zip(first.columns, second.columns, strict=True):
        if one is None or two is None:
            if one is not two:
                return False
        elif one[start:end].tobytes() != two[start:end].tobytes():
            return False
    return True


def show_cell(signals: Signals, index: int) -> str:
    """Return one cell for people."""
    stated = {name: getattr(signals, name) for name in _OPTIONAL}
    rest = "".join(f", {name} {values[index]:.6g}" for name, values in stated.items() if values is not None)
    return f"action {signals.action[index]}, strength {signals.strength[index]:.6g}{rest}"


def show_signal(signal: Signal) -> str:
    """Return a signal for people."""
    stated = {name: getattr(signal, name) for name in _OPTIONAL}
    rest = "".join(f", {name} {value:.6g}" for name, value in stated.items() if value is not None)
    return f"action {signal.action}, strength {signal.strength:.6g}{rest}"


def _apart(one: FloatArray, two: FloatArray) -> BoolArray:
    close: BoolArray = np.isclose(one, two, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
    return ~close
