from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.domain.candles import EPOCH, Candle, Timeframe
from app.feeds.files.discovery import describe_file
from app.feeds.files.faults import Faults
from app.feeds.files.rows import SeriesTable, build_rows
from app.feeds.files.table import Block
from app.feeds.files.values import parse_numbers, parse_times
from tests.unit.feeds.writing import HEADER, HOUR_MS, START_MS, flatten, line, replay, write

NEXT = START_MS + HOUR_MS


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"{NEXT},1,2,1", "cell_count"),
        (f"{NEXT},1,2,1,1,1,1", "cell_count"),
        (f"{NEXT},1,2,1,,1", "missing_cell"),
        (f"{NEXT},1,2,null,1,1", "missing_cell"),
        (",1,2,1,1,1", "missing_cell"),
        (",,,,,", "missing_cell"),
        (f"{NEXT},1,2,1,one,1", "bad_number"),
        (f"{NEXT},1,2,\ufffd1,1,1", "bad_number"),
        ("yesterday,1,2,1,1,1", "bad_timestamp"),
        ("nan,1,2,1,1,1", "bad_timestamp"),
        ("9" * 40 + ",1,2,1,1,1", "bad_timestamp"),
        ("9999-12-31T23:00:00Z,1,2,1,1,1", "bad_timestamp"),
        ("0001-01-01T00:00:00+02:00,1,2,1,1,1", "bad_timestamp"),
        ("-99999999999,1,2,1,1,1", "bad_timestamp"),
        (f"{NEXT + 1},1,2,1,1,1", "off_grid"),
        (f"{NEXT},nan,2,1,1,1", "not_finite"),
        (f"{NEXT},1,inf,1,1,1", "not_finite"),
        (f"{NEXT},1,2,1,1,-inf", "not_finite"),
        (f"{NEXT},1,1e999,1,1,1", "not_finite"),
        (f"{NEXT},1,2,0,1,1", "bad_price"),
        (f"{NEXT},1,2,1,-1,1", "bad_price"),
        (f"{NEXT},1,2,1,1,-0.1", "bad_volume"),
        (f"{NEXT},1,1.5,1,2,1", "bad_range"),
        (f"{NEXT},2,3,1.5,1,1", "bad_range"),
        (line(0), "duplicate"),
    ],
)
def test_a_bad_row_is_counted_and_costs_nothing_else(tmp_path: Path, row: str, reason: str) -> None:
    feed, batches = replay(write(tmp_path / "BTC-USDT-1h.csv", [line(0), row, line(2)]))
    assert feed.report.rejected == {reason: 1}
    assert [candle.open_time.hour for candle in flatten(batches)] == [0, 2]
    assert feed.report.unreadable == []


@pytest.mark.parametrize(
    ("symbol", "frame", "reason"),
    [("", "1h", "bad_symbol"), ("A B", "1h", "bad_symbol"), ("A", "7m", "bad_timeframe"), ("A", "1M", "bad_timeframe")],
)
def test_a_series_that_is_none_is_refused(tmp_path: Path, symbol: str, frame: str, reason: str) -> None:
    path = write(tmp_path / "all.csv", [f"{line(0)},{symbol},{frame}", f"{line(0)},A,1h"], f"{HEADER},symbol,timeframe")
    feed, batches = replay(path)
    assert feed.report.rejected == {reason: 1}
    assert len(flatten(batches)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "1609459200",
        "1609459200000",
        "1609459200000000",
        "1609459200000000000",
        "1609459200.0",
        "1.6094592e9",
        "2021-01-01",
        "2021-01-01 00:00",
        "2021-01-01T00:00:00",
        "2021-01-01T00:00:00Z",
        "2021-01-01T00:00:00.000Z",
        "2021-01-01 00:00:00 UTC",
        "2021-01-01T05:30:00+05:30",
        "2020-12-31T19:00:00-05:00",
        " 1609459200 ",
    ],
)
def test_every_way_to_write_a_time(text: str) -> None:
    faults = Faults(1)
    assert parse_times([text], faults).tolist() == [START_MS * 1000]
    assert faults.clean.all()


def test_units_are_told_apart_cell_by_cell(tmp_path: Path) -> None:
    rows = ["1609459200,1,2,1,1,1", "1609462800000,1,2,1,1,1", "2021-01-01T02:00Z,1,2,1,1,1"]
    _, batches = replay(write(tmp_path / "BTC-USDT-1h.csv", rows))
    assert [candle.open_time.hour for candle in flatten(batches)] == [0, 1, 2]


def test_candles_of_the_first_years_and_of_the_future_are_fine(tmp_path: Path) -> None:
    rows = ["0001-01-01T00:00Z,1,2,1,1,1", "1960-05-05,1,2,1,1,1", "9999-12-31T22:00Z,1,2,1,1,1"]
    feed, batches = replay(write(tmp_path / "BTC-USDT-1h.csv", rows))
    assert [candle.open_time.year for candle in flatten(batches)] == [1, 1960, 9999]
    assert feed.report.rejected == {}


def test_a_week_opens_on_monday(tmp_path: Path) -> None:
    rows = ["2021-01-04,1,2,1,1,1", "2021-01-07,1,2,1,1,1", "1969-12-29,1,2,1,1,1"]
    feed, batches = replay(write(tmp_path / "BTC-USDT-1w.csv", rows))
    assert {candle.open_time.weekday() for candle in flatten(batches)} == {0}
    assert feed.report.rejected == {"off_grid": 1}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_exactly(number: float) -> None:
    assert parse_numbers([repr(number)], Faults(1)).tolist() == [number]


PRICES = st.one_of(st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, -1.0, float("nan"), float("inf"), 1e-300]), st.floats())
MOMENTS = st.one_of(
    st.integers(-3, 3).map(lambda hour: EPOCH + hour * timedelta(hours=1)),
    st.datetimes(timezones=st.just(UTC)),
)


@settings(max_examples=300)
@given(moment=MOMENTS, values=st.tuples(*[PRICES] * 5), frame=st.sampled_from(Timeframe))
def test_rows_are_checked_by_the_rules_of_candle(moment: datetime, values: tuple[float, ...], frame: Timeframe) -> None:
    faults = Faults(1)
    block = Block(
        open_us=parse_times([moment.isoformat()], faults),
        values=tuple(parse_numbers([value], faults) for value in values),
        symbols=None,
        timeframes=None,
        faults=faults,
    )
    rows = build_rows(block, describe_file(Path(f"BTC-USDT-{frame}.csv")), SeriesTable())
    assert (len(rows) == 1) == _is_candle(moment, values, frame)
    assert faults.counts().total() == 1 - len(rows)


def _is_candle(moment: datetime, values: tuple[float, ...], frame: Timeframe) -> bool:
    names = ("open", "high", "low", "close", "volume")
    try:
        Candle.model_validate(
            {"symbol": "BTC-USDT", "timeframe": frame, "open_time": moment, **dict(zip(names, values, strict=True))}
        )
    except ValidationError:
        return False
    return moment <= datetime.max.replace(tzinfo=UTC) - frame.duration


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_order_of_rows_gives_the_same_candles(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hours = data.draw(st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=30))
    folder = tmp_path_factory.mktemp("order")
    rows = [f"{line(hour)},{symbol},1h" for hour in hours for symbol in ("A", "B")]
    path = write(folder / "all.csv", data.draw(st.permutations(rows)), f"{HEADER},symbol,timeframe")
    _, batches = replay(path)
    assert [[candle.symbol for candle in batch] for batch in batches] == [["A", "B"]] * len(hours)
    assert [batch[0].open_time.timestamp() * 1000 for batch in batches] == [
        START_MS + hour * HOUR_MS for hour in sorted(hours)
    ]


ROWS = st.one_of(
    st.builds(line, st.integers(0, 5), st.sampled_from([2.0, 2.5, 0.5])),
    st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20),
    st.lists(st.sampled_from(["1609459200", "1", "2", "-1", "nan", "", "x", '"']), min_size=5, max_size=7).map(
        ",".join
    ),
)


@given(rows=st.lists(ROWS, max_size=25))
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_a_file_every_row_is_accounted_for(
    rows: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "BTC-USDT-1h.csv"
    feed, batches = replay(write(path, rows))
    written = [row for row in path.read_text(encoding="utf-8").split("\n")[1:] if row.strip()]
    assert feed.report.accepted + feed.report.rejected.total() == len(written)
    assert feed.report.accepted == len(flatten(batches))
    closes = [batch[0].close_time for batch in batches]
    assert closes == sorted(closes)
    for batch in batches:
        assert len({(candle.symbol, candle.timeframe, candle.open_time) for candle in batch}) == len(batch)
