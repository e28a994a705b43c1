"""What every kind of candle file looks like once it is open: a table that is read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.feeds.files.discovery import CandleFile
from app.feeds.files.faults import Faults, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows of a table as numbers, in file order.

    `open_us` (n,) microseconds of the epoch; `values` open, high, low, close, volume, (n,) each, empty when
    only times were asked for; `symbols` and `timeframes` as in the file, None when it has no such column;
    `torn` counts rows that had the wrong number of cells and are not in the arrays.
    """

    open_us: IntArray
    values: tuple[FloatArray, ...]
    symbols: Sequence[str | None] | None
    timeframes: Sequence[str | None] | None
    faults: Faults
    torn: int = 0


class Table(Protocol):
    """A candle file whose header is understood."""

    @property
    def file(self) -> CandleFile:
        """The file that is read."""
        ...

    def blocks(self, block_rows: int, *, times_only: bool = False) -> Iterator[Block]:
        """Read the file from its start, at most `block_rows` rows at a time.

        Raises:
            FeedError: the file is damaged or cannot be read to its end.
        """
        ...
