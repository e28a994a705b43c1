"""Positions of a whole unit, for rules that never reduce one: the same as `app.domain.positions`, many times faster.

A stretch of candles on which the signal says the same holds one position at most: what a stop or a target has ended is
not entered again before something else was said. So positions follow from stretches, all of them at once, by numpy.
What comes out is what `step` gives, bit for bit: the arithmetic is the same, operation by operation, and a property
test holds the two against each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from app.domain.advancing import Bars, Cells
from app.domain.strategies import Trading
from app.runs.exits import TARGET, Entries, find_exits
from app.runs.shapes import CodeArray, FloatArray, IntArray


class Holdings(NamedTuple):
    """Positions from their entries to their ends, oldest first, each column (m,)."""

    begin: IntArray
    """Place of the candle at whose open each was entered."""
    end: IntArray
    """Place of the candle in which it ended; n where it is still open after the last candle."""
    side: CodeArray
    quantity: FloatArray
    entry_price: FloatArray
    entry_fee: FloatArray
    exit_price: FloatArray
    """NaN, like all of the end, where it is still open."""
    exit_fee: FloatArray
    profit: FloatArray
    """After both fees."""
    reason: CodeArray
    """Places in `REASONS`."""


def hold(bars: Bars, cells: Cells, rules: Trading) -> Holdings:
    """Return the positions of a unit.

    Args:
        bars: its candles, (n,), at least one.
        cells: what was said at their closes; every one has spoken.
        rules: that do not size by strength.
    """
    ordered, ends = _find_orders(cells, rules)
    begin, side = ordered + 1, cells.action[ordered]
    direction = side.astype(np.float64)
    quantity = rules.capital * rules.size_percent / 100 / bars.close[ordered]
    price = _moved(bars.open[begin], direction * rules.slippage_percent)
    fee = quantity * price * rules.fee_percent / 100
    stop, target = cells.stop[ordered], cells.target[ordered]
    if rules.stop_percent is not None:
        stop = _moved(price, -direction * rules.stop_percent)
    if rules.target_percent is not None:
        target = _moved(price, direction * rules.target_percent)
    entries = Entries(begin, direction, price, stop, target, np.where(begin < ends, ends, begin))
    end, exit_price, reason = _fill_exits(bars, cells, rules, entries)
    exit_fee = quantity * exit_price * rules.fee_percent / 100
    profit = direction * quantity * (exit_price - price) - fee - exit_fee
    return Holdings(begin, end, side, quantity, price, fee, exit_price, exit_fee, profit, reason)


def _find_orders(cells: Cells, rules: Trading) -> tuple[IntArray, IntArray]:
    """Return the candles whose signal is entered on at the next open, and where what each said ends."""
    count = len(cells.action)
    changes = np.flatnonzero(np.diff(cells.action)) + 1
    starts, ends = np.concatenate(([0], changes)), np.concatenate((changes, [count]))
    strong = np.flatnonzero(cells.strength >= rules.min_strength)
    ordered = np.append(strong, count)[np.searchsorted(strong, starts)]
    enters = (cells.action[starts] != 0) & (ordered < ends) & (ordered + 1 < count)
    return ordered[enters], ends[enters]


def _fill_exits(bars: Bars, cells: Cells, rules: Trading, entries: Entries) -> tuple[IntArray, FloatArray, CodeArray]:
    """Return where positions end, at which price, slippage included, and why."""
    count, (place, hit, reason) = len(bars.open), find_exits(bars, cells, rules, entries)
    is_signal = np.isnan(hit)
    end = np.minimum(place + is_signal, count)  # what is ordered at the last close stays open
    wanted = np.where(is_signal, np.append(bars.open, np.nan)[end], hit)
    slipped = _moved(wanted, -entries.side * rules.slippage_percent)
    return end, np.where(reason == TARGET, wanted, slipped), reason


def _moved(price: FloatArray, percent: FloatArray) -> FloatArray:
    return price * (1 + percent / 100)
