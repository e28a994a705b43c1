"""The arithmetic of composites: columns of views in, columns of answers out. Each cell on its own, in a fixed order.

Sums are made analyzer by analyzer, never by a matrix product: that may round a cell by where it lies in the array, and
a cell that meets a threshold exactly would not be the same in a shorter window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.strategies.bars import FloatArray
from app.strategies.sdk import ActionArray

BoolArray = npt.NDArray[np.bool_]


class View(NamedTuple):
    """What one analyzer says."""

    weight: float
    action: ActionArray
    score: FloatArray
    """(n,) float64: action times strength, -1 to 1."""
    edge: FloatArray | None
    stop: FloatArray | None
    target: FloatArray | None


def weigh(views: Sequence[View]) -> FloatArray:
    """Return the score: sum(weight * action * strength) / sum(weight), (n,) float64, -1 to 1."""
    total = sum(view.weight for view in views)
    score: FloatArray = sum((view.weight * view.score for view in views), np.zeros(len(views[0].score))) / total
    return score


def count_agreeing(views: Sequence[View], side: int) -> npt.NDArray[np.int64]:
    """Return how many analyzers are on a side: (n,) int64."""
    agreeing: npt.NDArray[np.int64] = np.sum([view.action == side for view in views], axis=0, dtype=np.int64)
    return agreeing


def hold(entry: ActionArray, leaves_long: BoolArray, leaves_short: BoolArray, candles: int) -> ActionArray:
    """Hold each side from its entry until it is left, the other one is taken, or `candles` have passed.

    Looks back: at any candle the newest entry counts, if it is at most `candles` old and its side was not left since.
    So a cell is a function of itself and `candles` before it, whatever the window began with, and a window with that
    many candles more than the analyzers need gives every answer that a longer one would.

    Args:
        entry: (n,) int8, the side whose entry rule is met, 0 for none; a side that is held is entered anew.
        leaves_long: (n,) bool, where a long is left.
        leaves_short: (n,) bool, where a short is left.
        candles: at least 0.

    Returns:
        (n,) int8: the side that is held.
    """
    places = np.arange(len(entry))
    newest = _newest(entry != 0, places)
    side = entry[newest]
    left = np.where(side > 0, _newest(leaves_long, places), _newest(leaves_short, places))
    is_held = (newest >= 0) & (places - newest <= candles) & (left <= newest)
    return np.where(is_held, side, 0).astype(np.int8)


def mean_edge(views: Sequence[View], side: ActionArray) -> FloatArray | None:
    """Return the weighted mean of the edges of those who are on the side and state one; None if none ever does."""
    stated = [view for view in views if view.edge is not None]
    if not stated:
        return None
    total, weight = np.zeros(len(side)), np.zeros(len(side))
    for view in stated:
        speaks = (view.action == side) & ~np.isnan(view.edge)  # type: ignore[arg-type]  # None is left out above
        total += np.where(speaks, view.weight * view.edge, 0.0)  # type: ignore[operator]
        weight += np.where(speaks, view.weight, 0.0)
    mean = np.full(len(side), np.nan)
    np.divide(total, weight, out=mean, where=(weight > 0.0) & (side != 0))
    return mean


def nearest(views: Sequence[View], side: ActionArray, *, is_stop: bool) -> FloatArray | None:
    """Return the most cautious level of those who are on the side: the nearest stop, or the nearest target.

    For a long the highest stop and the lowest target, for a short the lowest stop and the highest target.
    """
    pairs = [(view, view.stop if is_stop else view.target) for view in views]
    levels = [np.where(view.action == side, level, np.nan) for view, level in pairs if level is not None]
    if not levels:
        return None
    highest: FloatArray = np.fmax.reduce(levels)
    lowest: FloatArray = np.fmin.reduce(levels)
    return np.where((side > 0) == is_stop, highest, lowest)


def _newest(where: BoolArray, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the newest place up to each candle where something holds; -1 before the first."""
    newest: npt.NDArray[np.int64] = np.maximum.accumulate(np.where(where, places, -1))
    return newest
