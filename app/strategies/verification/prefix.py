"""Prefix invariance: what a strategy says about a candle must not change when later candles become known.

A vectorised strategy answers for a series at once; each of its cells must equal the answer of the series that ends
there. A strategy that is asked candle by candle never gets to see a later one, so there is nothing to find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from app.strategies.bars import Bars
from app.strategies.sdk import Signals
from app.strategies.verification.comparing import are_equal, differing_cells, show_cell
from app.strategies.verification.probe import CheckFailedError, Probe, failed
from app.strategies.verification.report import Check, Reason

#: Candles of a segment beyond the warm-up; each is the end of a prefix. Short segments make prefixes cheap.
SEGMENT = 256

#: Later candles that a centred window may be wide; a change of older cells than that comes from the whole series.
WIDEST = 128


class _Cut(NamedTuple):
    """A prefix whose cells are not those of the whole."""

    bars: Bars
    end: int
    """Place of its last candle."""
    first: int
    """Oldest cell that differs."""
    known: Signals
    """Its own cells."""
    later: Signals
    """Those of the whole."""

    @property
    def depth(self) -> int:
        """Later candles that a changed cell has looked at, at least."""
        return self.end - self.first + 1


def check_prefix(probe: Probe, series: Sequence[Bars], most: int) -> None:
    """Check every candle, or an even sample, of a vectorised strategy.

    Args:
        probe: of the strategy.
        series: to check on.
        most: prefixes to try at most; every candle when there are fewer.

    Raises:
        CheckFailedError: a cell changes; the first such candle with its depth.
    """
    if not probe.strategy.vectorised:
        return
    cuts = [cut for bars in series for cut in _cuts(probe, bars, max(1, most // len(series)))]
    if cuts:
        # the deepest tells what is going on; a candle near the end of the data may hide how far it looks
        raise _explain(max(cuts, key=lambda cut: cut.depth))


def _cuts(probe: Probe, bars: Bars, most: int) -> Iterator[_Cut]:
    warmup = probe.warmup(bars)
    stride = max(1, -(-max(0, len(bars) - warmup) // most))
    for start in range(0, len(bars) - warmup, SEGMENT):
        segment = bars.first(start + warmup + SEGMENT).last(min(warmup + SEGMENT, len(bars) - start))
        whole = probe.cells(segment)
        ends = range(warmup - 1 + start % stride, len(segment) - 1, stride)
        found = [cut for cut in (_cut(probe, segment, whole, end) for end in ends) if cut is not None]
        yield from found
        if found:  # more of the same
            return


def _cut(probe: Probe, bars: Bars, whole: Signals, end: int) -> _Cut | None:
    known = probe.cells(bars.first(end + 1))
    used_from = probe.warmup(bars) - 1
    if are_equal(known, whole, used_from, end + 1):
        return None
    differs = differing_cells(known, whole, end + 1)
    differs[:used_from] = False
    return _Cut(bars, end, int(np.argmax(differs)), known, whole) if differs.any() else None


def _explain(cut: _Cut) -> CheckFailedError:
    is_all = cut.depth > WIDEST
    reason = Reason.NORMALISED if is_all else Reason.PEEKS if cut.depth == 1 else Reason.CENTRED
    far = "the whole series" if is_all else f"{cut.depth} candle{'s' if cut.depth > 1 else ''} ahead"
    expected = f"the answer that is given when it is the newest candle ({show_cell(cut.known, cut.end)})"
    found = f"{show_cell(cut.later, cut.end)} once later ones are known: it looks at {far}"
    if not _differs(cut, cut.end):
        expected = f"the answer that is given with {cut.depth - 1} later candles ({show_cell(cut.known, cut.first)})"
        found = f"{show_cell(cut.later, cut.first)} once more are known: it looks at {far}"
        return failed(cut.bars, Check.PREFIX, reason, expected, found, cut.first)
    return failed(cut.bars, Check.PREFIX, reason, expected, found, cut.end)


def _differs(cut: _Cut, index: int) -> bool:
    return bool(differing_cells(cut.known, cut.later, cut.end + 1)[index])
