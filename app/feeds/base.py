"""The Feed protocol and the count of what a feed refused. A feed knows nothing of strategies or storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from app.domain.candles import Candle


@dataclass
class FeedReport:
    """What a feed has seen so far; complete once its iteration has ended."""

    accepted: int = 0
    """Candles handed on."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rows refused, by reason (one lower_case word or words, such as ``off_grid``)."""
    gaps: int = 0
    """Breaks in the grid of a series; a gap is reported, never filled."""
    reordered: int = 0
    """Rows that stood in their file after a later one; they are sorted in, not refused."""
    unreadable: list[str] = field(default_factory=list)
    """Files that could not be read at all, each as one message naming file, line and what was expected."""


class Feed(Protocol):
    """A source of closed candles."""

    @property
    def source(self) -> str:
        """Where the candles come from, such as ``replay:data/2021`` or ``generated:seed=7``."""
        ...

    @property
    def report(self) -> FeedReport:
        """What was accepted and what was refused, up to now."""
        ...

    @property
    def can_wait(self) -> bool:
        """Whether it loses nothing by not being read for a while; False for one on the clock."""
        ...

    def batches(self) -> Iterator[list[Candle]]:
        """Yield all candles of one close time together, close times ascending; each batch is not empty.

        Raises:
            FeedError: the source as a whole cannot be read.
        """
        ...
