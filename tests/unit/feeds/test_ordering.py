from __future__ import annotations

import random
from itertools import pairwise

import numpy as np

from app.feeds.files.merging import assign_lanes, count_overlapping
from app.feeds.files.ordering import Extent, Row, sort_rows, unpack
from app.feeds.files.rows import ROW, Rows


def _rows(times: list[int]) -> Rows:
    rows = np.zeros(len(times), dtype=ROW)
    rows["close_us"] = times
    rows["volume"] = range(len(times))
    return rows


def test_runs_in_temporary_files_give_the_order_of_one_stable_sort() -> None:
    shuffle = random.Random(3)
    rows = _rows([shuffle.randrange(200) for _ in range(1000)])
    blocks = [rows[start : start + 37] for start in range(0, 1000, 37)]
    expected: list[Row] = sorted(rows.tolist(), key=lambda row: row[0])
    assert list(sort_rows(blocks, block_rows=16, run_rows=100)) == expected
    assert list(sort_rows(blocks, block_rows=16)) == expected


def test_nothing_sorts_to_nothing() -> None:
    assert list(sort_rows([], block_rows=16)) == []


def test_a_file_opens_only_when_the_one_before_it_in_its_lane_is_done() -> None:
    spans = [(0, 9), (10, 19), (5, 14), (19, 30), (20, 25)]
    sources = [
        (Extent(rows=1, span=span, backwards=0), lambda span=span: unpack([_rows(list(span))], 8)) for span in spans
    ]
    lanes = [[[row[0] for row in open_rows()] for open_rows in lane] for lane in assign_lanes(sources)]
    for lane in lanes:
        assert all(before[1] < after[0] for before, after in pairwise(lane))
    assert sorted(span for lane in lanes for span in lane) == sorted(map(list, spans))
    assert len(lanes) == count_overlapping([extent for extent, _ in sources]) == 2


def test_files_without_usable_times_share_a_lane() -> None:
    assert count_overlapping([Extent(rows=3, span=None, backwards=0)] * 3) == 1
