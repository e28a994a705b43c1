"""Evaluating: what a strategy says at every candle of a span. Pure.

A vectorised strategy answers block by block, any other candle by candle on the windows that live gives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from app.domain.advancing import Cells, Mask
from app.domain.runs import Method
from app.errors import InvalidSignalError
from app.runs.spans import Block, Span
from app.strategies.bars import Bars, FloatArray
from app.strategies.evaluation import check_columns, describe_candle, evaluate
from app.strategies.sdk import Signals, Strategy

#: Windows between two looks at whether to go on: some milliseconds.
WINDOWS_A_LOOK = 128

#: Called between two parts of the work; what it raises ends it.
Look = Callable[[], None]


def evaluate_span(strategy: Strategy, span: Span, method: Method, look: Look = lambda: None) -> Cells:
    """Ask a strategy about every candle of a span's range.

    Args:
        strategy: what to ask.
        span: the candles.
        method: how.
        look: called every few milliseconds of work.

    Returns:
        One cell per candle of the range; flat while the history is too short, and without stop and target where flat.

    Raises:
        InvalidSignalError: an answer has the wrong type, shape, dtype or range; names strategy and candle.
    """
    cells = _empty(len(span))
    if strategy.vectorised and method is Method.AUTO:
        for block in span.blocks():
            look()
            _fill_block(strategy, span, block, cells)
    else:
        _fill_windows(strategy, span, cells, look)
    return cells


def _empty(count: int) -> Cells:
    nothing = np.full(count, np.nan)
    return Cells(np.ones(count, bool), np.zeros(count, np.int8), np.zeros(count), nothing, nothing.copy())


def _fill_block(strategy: Strategy, span: Span, block: Block, cells: Cells) -> None:
    bars = block.indicators.bars
    needed = strategy.warmups.get(bars.timeframe) or strategy.candles_needed_on(bars.timeframe)
    begin = max(block.first, needed - 1)  # no candle before it has enough of a history
    if block.start + len(bars) <= begin:
        return
    answer = strategy.signals(bars, block.indicators.select(strategy.declared))
    part = Part(strategy, bars, begin - block.start)
    place = slice(begin - span.first, block.start + len(bars) - span.first)
    _fill(cells, place, part, check_columns(strategy, bars, answer))


def _fill(cells: Cells, place: slice, part: Part, answer: Signals) -> None:
    action, strength = answer.action[part.first :], answer.strength[part.first :]
    part.check((action < -1) | (action > 1), "action to be -1, 0 or 1", action)
    part.check(~((strength >= 0) & (strength <= 1)), "strength to be 0 to 1", strength)
    part.prices("edge", answer.edge, -math.inf)
    cells.action[place], cells.strength[place] = action, strength
    for name in ("stop", "target"):
        prices = part.prices(name, getattr(answer, name), 0.0)
        if prices is not None:
            getattr(cells, name)[place] = np.where(action == 0, np.nan, prices)


class Part:
    """The cells of an answer that count, and what is wrong with them.

    Args:
        strategy: who answered.
        bars: what it was asked about.
        first: the first cell that counts.
    """

    def __init__(self, strategy: Strategy, bars: Bars, first: int) -> None:
        self._strategy = strategy
        self._bars = bars
        self.first = first

    def prices(self, name: str, values: FloatArray | None, above: float) -> FloatArray | None:
        """Return the cells of a column that may be left out, or hold NaN for none."""
        if values is None:
            return None
        cells = values[self.first :]
        expected = "a finite number" if above < 0 else "a finite price above 0"
        self.check((cells <= above) | (cells == math.inf), f"{name} to be {expected}, or NaN for none", cells)
        return cells

    def check(self, is_wrong: Mask, expected: str, cells: npt.NDArray[Any]) -> None:
        """Refuse the first cell that is wrong."""
        place = int(is_wrong.argmax())
        if is_wrong[place]:
            candle = describe_candle(self._bars.first(self.first + place + 1))
            found = repr(cells[place].item())
            name = self._strategy.name
            raise InvalidSignalError(f"strategy {name!r} on {candle}: expected {expected}, found {found}")


def _fill_windows(strategy: Strategy, span: Span, cells: Cells, look: Look) -> None:
    for number in range(len(span)):
        if number % WINDOWS_A_LOOK == 0:
            look()
        signal = evaluate(strategy, span.window_until(span.first + number))
        cells.action[number], cells.strength[number] = signal.action, signal.strength
        if signal.action and signal.stop is not None:
            cells.stop[number] = signal.stop
        if signal.action and signal.target is not None:
            cells.target[number] = signal.target
