"""Time order across files, and all candles of one close time together. Knows rows, not files or formats.

Within one replay the same open time of a series may come more than once. The same values again are a
duplicate and refused; other values are a correction and go into a later batch of the same close time,
so that no batch holds a candle twice. Both hold across files: the order of the files decides which came first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from app.domain.candles import Candle
from app.feeds.base import FeedReport
from app.feeds.files.faults import Reason
from app.feeds.files.ordering import Extent, Row
from app.feeds.files.rows import SeriesTable

#: Opens a file and yields its rows in time order.
OpenRows = Callable[[], Iterator[Row]]


def merge_rows(sources: Iterable[tuple[Extent, OpenRows]]) -> Iterator[Row]:
    """Merge files by close time; a file is open only while the replay is within its time range."""
    return heapq.merge(*(_read_lane(lane) for lane in assign_lanes(sources)))


def count_overlapping(extents: Iterable[Extent]) -> int:
    """Count how many files a replay has to have open together at most."""
    return len(assign_lanes((extent, _read_nothing) for extent in extents))


def assign_lanes(sources: Iterable[tuple[Extent, OpenRows]]) -> list[list[OpenRows]]:
    """Line up files whose time ranges follow each other, so that only overlapping files are open together."""
    known = list(sources)
    timed = [(extent.span, open_rows) for extent, open_rows in known if extent.span]
    # Files without one usable time have no rows to merge; they are read one by one, for the count of what they hold.
    timeless = [open_rows for extent, open_rows in known if not extent.span]
    lanes = [timeless] if timeless else []
    free_from: list[tuple[int, int]] = []
    for (first_us, last_us), open_rows in sorted(timed, key=itemgetter(0)):
        if free_from and free_from[0][0] < first_us:
            lane = heapq.heappop(free_from)[1]
        else:
            lane = len(lanes)
            lanes.append([])
        lanes[lane].append(open_rows)
        heapq.heappush(free_from, (last_us, lane))
    return lanes


def _read_nothing() -> Iterator[Row]:
    return iter(())


def _read_lane(lane: list[OpenRows]) -> Iterator[Row]:
    for open_rows in lane:
        yield from open_rows()


class Batcher:
    """Groups rows in time order into batches of candles; keeps one number per series and one group of rows."""

    def __init__(self, table: SeriesTable, report: FeedReport, build: Callable[[Row], Candle]) -> None:
        self._table = table
        self._report = report
        self._build = build
        self._last_close_us: dict[int, int] = {}

    def batches(self, rows: Iterable[Row]) -> Iterator[list[Candle]]:
        """Yield batches, close times ascending; a correction comes in a batch after what it corrects."""
        for _, group in groupby(rows, key=itemgetter(0)):
            rows = list(group)
            if len(rows) == 1:
                self._count_gaps(rows)
                yield [self._build(rows[0])]
            else:
                yield from self._waves(rows)

    def _waves(self, group: list[Row]) -> list[list[Candle]]:
        waves: list[list[Row]] = []
        versions: dict[int, list[Row]] = {}
        for row in group:
            known = versions.setdefault(row[2], [])
            if known and known[-1][4:] == row[4:]:
                self._report.rejected[Reason.DUPLICATE.value] += 1
                continue
            if len(waves) == len(known):
                waves.append([])
            waves[len(known)].append(row)
            known.append(row)
        self._count_gaps(waves[0])
        return [self._finish(wave) for wave in waves]

    def _finish(self, wave: list[Row]) -> list[Candle]:
        candles = [self._build(row) for row in wave]
        if len(candles) > 1:
            candles.sort(key=lambda candle: (candle.symbol, candle.timeframe))
        return candles

    def _count_gaps(self, rows: list[Row]) -> None:
        for close_us, _, series, open_us, *_ in rows:
            last = self._last_close_us.get(series)
            if last is not None and open_us > last:
                self._report.gaps += 1
            self._last_close_us[series] = close_us
