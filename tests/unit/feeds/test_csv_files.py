from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from app.errors import FeedError
from app.feeds.replay import ReplayFeed
from tests.unit.feeds.writing import HEADER, flatten, line, replay, write

GOOD = f"{HEADER}\n{line(0)}\n{line(1)}\n".encode()


def _hours(path: Path) -> list[int]:
    feed, batches = replay(path)
    assert feed.report.rejected == {}
    return [candle.open_time.hour for candle in flatten(batches)]


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        gzip.compress(GOOD, mtime=0),
        b"\xef\xbb\xbf" + GOOD,
        gzip.compress(b"\xef\xbb\xbf" + GOOD, mtime=0),
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"\n", b"\r"),
        GOOD.replace(b"\n", b"\n\n  \n"),
        b"\n\n" + GOOD,
        GOOD.rstrip(b"\n"),
        GOOD.replace(b",", b";"),
        GOOD.replace(b",", b"\t"),
        GOOD.replace(b",", b"|"),
        GOOD.replace(b",", b" , "),
        b"\n".join(b",".join(b'"%s"' % cell for cell in row.split(b",")) for row in GOOD.splitlines()),
        GOOD.upper(),
        GOOD.replace(HEADER.encode(), b"t,O,h,L,c,v"),
        GOOD.replace(HEADER.encode(), b"open_time,Open Price,high,low,close,vol"),
    ],
)
def test_ways_to_write_the_same_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "BTC-USDT-1h.csv"
    path.write_bytes(data)
    assert _hours(path) == [0, 1]


def test_columns_in_any_order_and_extra_ones(tmp_path: Path) -> None:
    rows = ['2.0,"Exchange, main",10,1609459200,1.0,1.5,3.0,1609462799']
    path = write(tmp_path / "X-1h.csv", rows, "close,venue,volume,open_time,low,open,high,close_time")
    candle = flatten(replay(path)[1])[0]
    assert (candle.open, candle.high, candle.low, candle.close, candle.volume) == (1.5, 3.0, 1.0, 2.0, 10.0)


def test_the_most_exact_time_column_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "X-1h.csv", ["2021-01-01,1,2,1,1,1,1609466400"], "date,o,h,l,c,v,open_time")
    assert _hours(path) == [2]


def test_an_open_quote_swallows_only_its_own_line(tmp_path: Path) -> None:
    path = write(tmp_path / "X-1h.csv", [line(0), '"' + line(1), line(2)])
    feed, batches = replay(path)
    assert [candle.open_time.hour for candle in flatten(batches)] == [0, 2]
    assert feed.report.rejected == {"cell_count": 1}


def test_a_cell_without_end_costs_one_row(tmp_path: Path) -> None:
    feed, batches = replay(write(tmp_path / "X-1h.csv", [line(0), '"' + "x" * 200_000, line(2)]))
    assert len(flatten(batches)) == 2
    assert feed.report.rejected == {"cell_count": 1}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("A-1h.csv", b"", r"A-1h\.csv, line 1: expected a header, found an empty file"),
        ("A-1h.csv", b"\n \n", r"expected a header, found an empty file"),
        ("A-1h.csv.gz", gzip.compress(b"", mtime=0), r"expected a header, found an empty file"),
        (
            "A-1h.csv",
            GOOD.replace(b"close", b"clos"),
            r"line 1: expected columns .* not found: close; found 'timestamp",
        ),
        (
            "A-1h.csv",
            GOOD.split(b"\n", 1)[1],
            r"line 1: expected columns .* not found: timestamp, open, .*found '16094",
        ),
        ("A-1h.csv", b"\n\nfoo,bar\n1,2\n", r"line 3: expected columns"),
        ("A-1h.csv", random.Random(1).randbytes(5000), r"line 1: expected columns"),
        ("A-1h.csv", GOOD.decode().encode("utf-16"), r"found: text in UTF-16"),
        ("A-1h.csv.gz", b"\x1f\x8b" + b"\x00" * 50, r"expected a readable CSV file, found: "),
        ("A-7m.csv", GOOD, r"expected a timeframe in the name or a column `timeframe`, found none; .*allowed: .*15m"),
        ("candles.csv", GOOD, r"expected a name like BTC-USDT-1h\.csv\.gz or a column `symbol`, found neither"),
        ("A B-1h.csv", GOOD, r"expected a symbol of letters"),
        ("A-1h.parquet", GOOD, r"expected a Parquet file, found: "),
        ("A-1h.parquet", b"", r"expected a Parquet file, found: "),
    ],
)
def test_an_unreadable_file_is_named_and_the_others_go_on(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    bad = tmp_path / name
    bad.write_bytes(data)
    with pytest.raises(FeedError, match=message):
        list(ReplayFeed([bad]).batches())
    write(tmp_path / "good" / "B-1h.csv", [line(0)])
    feed, batches = replay(tmp_path)
    assert len(flatten(batches)) == 1
    assert len(feed.report.unreadable) == 1
    assert str(bad) in feed.report.unreadable[0]


def test_a_truncated_gzip_is_refused_as_a_whole_and_says_where_it_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "A-1h.csv.gz", [line(hour, 2 + hour % 7 / 10) for hour in range(5000)])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(FeedError, match=r"A-1h\.csv\.gz, line \d{3,4}: expected another row or the end of the file"):
        list(ReplayFeed([path]).batches())


def test_a_file_that_breaks_while_it_is_replayed_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "A-1h.csv", [line(0), line(1)])
    other = write(tmp_path / "B-1h.csv", [line(5), line(6)])
    feed = ReplayFeed([tmp_path])
    batches = feed.batches()
    next(batches)
    other.unlink()
    assert len(flatten(list(batches))) == 1
    assert str(other) in feed.report.unreadable[0]
    assert path.exists()


def test_a_header_without_rows_is_an_empty_replay(tmp_path: Path) -> None:
    feed, batches = replay(write(tmp_path / "A-1h.csv", []))
    assert batches == []
    assert feed.report.unreadable == []
    assert feed.progress() == 1.0


def test_other_files_in_a_folder_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "A-1h.csv", [line(0)])
    (tmp_path / "README.md").write_text("not candles")
    write(tmp_path / ".hidden" / "B-1h.csv", [line(0)])
    feed, batches = replay(tmp_path)
    assert len(flatten(batches)) == 1
    assert feed.report.unreadable == []
