"""Replay of candle files, from one file to folders of many series, as if their candles closed again one by one.

Owns the course of a replay: find the files, look at their times once, merge, pace. Every format, rule
and order is in `app.feeds.files`. docs/feeds.md says what a file may look like.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import chain, takewhile
from pathlib import Path

from app.domain.candles import EPOCH, Candle
from app.errors import FeedError
from app.feeds.base import FeedReport
from app.feeds.files.discovery import find_files
from app.feeds.files.faults import Reason
from app.feeds.files.merging import Batcher, OpenRows, count_overlapping, merge_rows
from app.feeds.files.opening import open_table
from app.feeds.files.ordering import Extent, Row, join_extents, measure, sort_rows, unpack
from app.feeds.files.rows import Rows, SeriesTable, build_rows
from app.feeds.files.table import Block, Table
from app.feeds.pacing import Pacer

#: Rows read ahead over all files together; bounds memory when many files are merged.
READ_AHEAD_ROWS = 65_536
#: Most and fewest rows read ahead of one file: above it nothing gets faster, below it the overhead shows.
MOST_BLOCK_ROWS, FEWEST_BLOCK_ROWS = 2_048, 64
#: More files than this that overlap in time are sorted through temporary files instead of being open together.
MOST_OPEN_FILES = 256


class ReplayFeed:
    """Candles out of CSV and Parquet files, all those of one close time together.

    Args:
        paths: files or folders; of two versions of one candle the later path's is the correction.
        speed: factor of real time (60: an hour of candles per minute); None is as fast as possible.
        stop: set it to end the replay after the batch at hand; also ends a wait.
        wait: waits so many seconds, by default for `stop`.
        clock: seconds that only go forward.

    Raises:
        ConfigurationError: speed is not a finite number above zero.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        speed: float | None = None,
        stop: threading.Event | None = None,
        wait: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = [Path(path) for path in paths]
        self._stop = stop or threading.Event()
        self._is_paced = speed is not None
        self._pacer = Pacer(speed, self._stop, wait or self._stop.wait, clock)
        self._report = FeedReport()
        self._series = SeriesTable()
        self._total_rows: int | None = None

    @property
    def source(self) -> str:
        """``replay:`` and the paths."""
        return f"replay:{','.join(map(str, self._paths))}"

    @property
    def report(self) -> FeedReport:
        """What was accepted and what was refused, up to now; a second iteration adds to it."""
        return self._report

    @property
    def can_wait(self) -> bool:
        """Whether it replays as fast as possible; with a speed it is on the clock."""
        return not self._is_paced

    def progress(self) -> float | None:
        """Fraction of all rows that are handed on or refused, 0 to 1; None until every file was looked at once."""
        if self._total_rows is None:
            return None
        done = self._report.accepted + self._report.rejected.total()
        return min(1.0, done / self._total_rows) if self._total_rows else 1.0

    def batches(self) -> Iterator[list[Candle]]:
        """Yield all candles of one close time together, close times ascending.

        Raises:
            FeedError: not one file could be read; the message holds what was wrong with each.
        """
        sources = self._open_sources()
        batcher = Batcher(self._series, self._report, self._build_candle)
        for batch in self._pacer.pace(batcher.batches(merge_rows(sources))):
            self._report.accepted += len(batch)
            yield batch

    def _open_sources(self) -> list[tuple[Extent, OpenRows]]:
        files, problems = find_files(self._paths)
        self._report.unreadable += problems
        measured: list[tuple[Extent, Table]] = []
        for file in files:
            try:
                table = open_table(file)
                measured.append((measure(table, self._series, MOST_BLOCK_ROWS, self._stop.is_set), table))
            except FeedError as error:
                self._report.unreadable.append(str(error))
        if not measured:
            raise FeedError("no candle file could be read:\n" + "\n".join(self._report.unreadable))
        self._total_rows = sum(extent.rows for extent, _ in measured)
        return self._plan(measured)

    def _plan(self, measured: list[tuple[Extent, Table]]) -> list[tuple[Extent, OpenRows]]:
        self._report.reordered += sum(extent.backwards for extent, _ in measured)
        together = count_overlapping([extent for extent, _ in measured])
        if together > MOST_OPEN_FILES:
            return [(join_extents([extent for extent, _ in measured]), partial(self._read_sorted, measured))]
        block_rows = max(FEWEST_BLOCK_ROWS, min(MOST_BLOCK_ROWS, READ_AHEAD_ROWS // max(together, 1)))
        return [(extent, partial(self._read, table, extent, block_rows)) for extent, table in measured]

    def _read(self, table: Table, extent: Extent, block_rows: int) -> Iterator[Row]:
        blocks = self._checked_blocks(table, block_rows)
        return sort_rows(blocks, block_rows) if extent.backwards else unpack(blocks, block_rows)

    def _read_sorted(self, measured: list[tuple[Extent, Table]]) -> Iterator[Row]:
        one_by_one = (self._checked_blocks(table, MOST_BLOCK_ROWS) for _, table in measured)
        return sort_rows(chain.from_iterable(one_by_one), MOST_BLOCK_ROWS)

    def _checked_blocks(self, table: Table, block_rows: int) -> Iterator[Rows]:
        try:
            for block in takewhile(lambda _: not self._stop.is_set(), table.blocks(block_rows)):
                yield self._check(block, table)
        except FeedError as error:
            # The file was whole when its times were read: what was handed on before stays.
            self._report.unreadable.append(str(error))

    def _check(self, block: Block, table: Table) -> Rows:
        rows = build_rows(block, table.file, self._series)
        self._report.rejected.update(block.faults.counts())
        if block.torn:
            self._report.rejected[Reason.CELL_COUNT.value] += block.torn
        return rows

    def _build_candle(self, row: Row) -> Candle:
        _, _, number, open_us, open_, high, low, close, volume = row
        series = self._series.series[number]
        return Candle(
            symbol=series.symbol,
            timeframe=series.timeframe,
            open_time=EPOCH + timedelta(microseconds=open_us),
            open=open_,
            high=high,
            low=low,
            close=close,
            volume=volume,
        )
