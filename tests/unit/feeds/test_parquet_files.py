from __future__ import annotations

import decimal
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import FeedError
from app.feeds.replay import ReplayFeed
from tests.unit.feeds.writing import START_MS, flatten, replay

VALUES = {"Open": [1.5, 1.5], "high": [3.0, 3.0], "low": [1.0, 1.0], "close": [2.0, 2.0], "volume": [10.0, 0.0]}
MOMENTS = [datetime(2021, 1, 1, hour) for hour in (0, 1)]  # noqa: DTZ001  # a naive column is part of the test


def _write(path: Path, times: Any, **other: Any) -> Path:
    pq.write_table(pa.table({"Timestamp": times, **VALUES, **other}), path, row_group_size=1)
    return path


@pytest.mark.parametrize(
    "times",
    [
        pa.array([START_MS, START_MS + 3_600_000]),
        pa.array([START_MS // 1000, START_MS // 1000 + 3600], pa.int32()),
        pa.array([float(START_MS), START_MS + 3_600_000.0]),
        pa.array(MOMENTS, pa.timestamp("us")),
        pa.array(MOMENTS, pa.timestamp("ns")),
        pa.array(MOMENTS, pa.timestamp("s")),
        pa.array([moment.replace(tzinfo=UTC) for moment in MOMENTS], pa.timestamp("ms", tz="Europe/Berlin")),
        pa.array([moment.isoformat() for moment in MOMENTS]),
        pa.array([moment.isoformat() for moment in MOMENTS]).dictionary_encode(),
        pa.array([str(START_MS), str(START_MS + 3_600_000)]),
    ],
    ids=lambda times: str(times.type),
)
def test_every_type_of_time_column(tmp_path: Path, times: Any) -> None:
    feed, batches = replay(_write(tmp_path / "BTC-USDT-1h.parquet", times))
    assert [candle.open_time for candle in flatten(batches)] == [moment.replace(tzinfo=UTC) for moment in MOMENTS]
    assert feed.report.rejected == {}


def test_a_date_column_and_a_name_that_says_nothing(tmp_path: Path) -> None:
    times = pa.array([date(2021, 1, 1), date(2021, 1, 2)])
    path = _write(tmp_path / "data.bin", times, symbol=["B", "A"], timeframe=pa.array(["1d", "1d"]).dictionary_encode())
    assert [candle.symbol for candle in flatten(replay(path)[1])] == ["B", "A"]


@pytest.mark.parametrize(
    "opens",
    [
        pa.array([1.5, None]),
        pa.array(["1.5", None]),
        pa.array(["1.5", ""]),
        pa.array([decimal.Decimal("1.5"), None]),
        pa.array([1.5, None], pa.float32()),
    ],
    ids=lambda opens: str(opens.type),
)
def test_types_of_price_columns_and_missing_cells(tmp_path: Path, opens: Any) -> None:
    feed, batches = replay(_write(tmp_path / "A-1h.parquet", pa.array(MOMENTS), Open=opens))
    assert [candle.open for candle in flatten(batches)] == [1.5]
    assert feed.report.rejected == {"missing_cell": 1}


def test_a_missing_time_and_a_fraction_of_a_second_are_refused(tmp_path: Path) -> None:
    feed, _ = replay(_write(tmp_path / "A-1h.parquet", pa.array([None, START_MS / 1000 + 0.5])))
    assert feed.report.rejected == {"missing_cell": 1, "off_grid": 1}


def test_newest_first_is_sorted(tmp_path: Path) -> None:
    feed, batches = replay(_write(tmp_path / "A-1h.parquet", pa.array(MOMENTS[::-1])))
    assert [candle.open_time.hour for candle in flatten(batches)] == [0, 1]
    assert feed.report.reordered == 1


def test_a_wrong_type_or_a_missing_column_is_named(tmp_path: Path) -> None:
    flags = _write(tmp_path / "A-1h.parquet", pa.array(MOMENTS), volume=[True, False])
    with pytest.raises(FeedError, match=r"A-1h\.parquet, column volume: expected numbers or text .*, found bool"):
        list(ReplayFeed([flags]).batches())
    pq.write_table(pa.table({"time": MOMENTS, "price": [1.0, 2.0]}), flags)
    with pytest.raises(FeedError, match=r"not found: open, high, low, close, volume; found time, price"):
        list(ReplayFeed([flags]).batches())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "A-1h.parquet", pa.array(MOMENTS))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FeedError, match=r"A-1h\.parquet: expected a Parquet file, found: "):
        list(ReplayFeed([path]).batches())
