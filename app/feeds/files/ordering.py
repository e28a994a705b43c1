"""Time order within one file: what a first pass over the times says, and sorting where it is needed.

A sorted file is streamed. An unsorted one is sorted by close time in runs of RUN_ROWS rows; one run stays in
memory, more go to a temporary file each and are merged from there.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from typing import IO, Any

import numpy as np

from app.errors import FeedError
from app.feeds.files.faults import IntArray
from app.feeds.files.rows import ROW, Rows, SeriesTable, place
from app.feeds.files.table import Table

#: Rows of one sorted run: 8 MB, some 30 MB while it is sorted. Measured, not tuned: larger runs are not faster.
RUN_ROWS = 131_072

Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What the first pass over a file found.

    `span` is the first and last close time in microseconds, None when no row has a usable time;
    `backwards` counts rows that close before the row above them.
    """

    rows: int
    span: tuple[int, int] | None
    backwards: int


def join_extents(extents: Iterable[Extent]) -> Extent:
    """Build the extent of several files read as one."""
    known = list(extents)
    spans = [extent.span for extent in known if extent.span]
    return Extent(
        rows=sum(extent.rows for extent in known),
        span=(min(first for first, _ in spans), max(last for _, last in spans)) if spans else None,
        backwards=sum(extent.backwards for extent in known),
    )


def measure(table: Table, series: SeriesTable, block_rows: int, stopped: Callable[[], bool]) -> Extent:
    """Read only the times of a file, to its end or until `stopped` says so.

    Raises:
        FeedError: the file is damaged or cannot be read to its end.
    """
    rows = backwards = 0
    span: tuple[int, int] | None = None
    latest: int | None = None
    for block in takewhile(lambda _: not stopped(), table.blocks(block_rows, times_only=True)):
        rows += len(block.open_us) + block.torn
        _, close_us = place(block, table.file, series)
        times = close_us[block.faults.clean]
        if not len(times):
            continue
        backwards += _count_backwards(times, latest)
        latest = int(times[-1])
        first, last = span or (latest, latest)
        span = min(first, int(times.min())), max(last, int(times.max()))
    return Extent(rows=rows, span=span, backwards=backwards)


def sort_rows(blocks: Iterable[Rows], block_rows: int, run_rows: int = RUN_ROWS) -> Iterator[Row]:
    """Yield rows by close time; rows of one close time keep the order in which they came.

    Args:
        blocks: rows in any order.
        block_rows: rows of a run that are held in memory at once while runs are merged.
        run_rows: rows that are sorted in memory at once.

    Raises:
        FeedError: a temporary file cannot be written.
    """
    with ExitStack() as files:
        runs: list[Iterator[Row]] = []
        pending: list[Rows] = []
        for block in blocks:
            pending.append(block)
            if sum(map(len, pending)) >= run_rows:
                runs.append(_spill(_sort(pending), block_rows, files))
                pending = []
        if pending:
            runs.append(unpack([_sort(pending)], block_rows))
        yield from heapq.merge(*runs, key=_close_us)


def unpack(blocks: Iterable[Rows], block_rows: int) -> Iterator[Row]:
    """Turn arrays of rows into tuples (close_us, rank, series, open_us, open, high, low, close, volume)."""
    for block in blocks:
        for start in range(0, len(block), block_rows):
            yield from block[start : start + block_rows].tolist()


def _count_backwards(times: IntArray, latest: int | None) -> int:
    steps_back = int(np.count_nonzero(np.diff(times) < 0))
    return steps_back + (latest is not None and int(times[0]) < latest)


def _sort(blocks: list[Rows]) -> Rows:
    rows = np.concatenate(blocks)
    return rows[np.argsort(rows["close_us"], kind="stable")]


def _spill(rows: Rows, block_rows: int, files: ExitStack) -> Iterator[Row]:
    try:
        file = files.enter_context(tempfile.TemporaryFile(prefix="candlefleet-sort-"))  # noqa: SIM115  # by `files`
        file.write(rows.tobytes())
        file.seek(0)
    except OSError as error:
        advice = f"expected room for {rows.nbytes} bytes in {tempfile.gettempdir()}; free some or set TMPDIR"
        raise FeedError(f"sorting candles that are not in time order: {advice}; found: {error}") from error
    return unpack(_read_run(file, block_rows), block_rows)


def _read_run(file: IO[bytes], block_rows: int) -> Iterator[Rows]:
    while data := file.read(block_rows * ROW.itemsize):
        yield np.frombuffer(data, dtype=ROW)


def _close_us(row: Row) -> int:
    return int(row[0])
