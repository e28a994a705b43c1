from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain.candles import Candle, Timeframe
from app.errors import ConfigurationError, FeedError
from app.feeds import replay as replay_module
from app.feeds.base import Feed
from app.feeds.replay import ReplayFeed
from tests.unit.feeds.writing import HOUR_MS, flatten, line, replay, write


def test_a_row_becomes_the_candle_that_it_says(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USDT-1h.csv.gz", ["1609459200000,5.330000000000001e-05,0.1,1e-9,0.07,12.5"])
    _, batches = replay(path)
    assert batches == [
        [
            Candle(
                symbol="BTC-USDT",
                timeframe=Timeframe.H1,
                open_time=datetime(2021, 1, 1, tzinfo=UTC),
                open=5.330000000000001e-05,
                high=0.1,
                low=1e-9,
                close=0.07,
                volume=12.5,
            )
        ]
    ]


def test_all_candles_of_one_close_come_together_sorted(tmp_path: Path) -> None:
    write(tmp_path / "b" / "ETH-USDT-1h.csv", [line(0), line(1)])
    write(tmp_path / "a" / "ZEC-USDT-1h.csv.gz", [line(1)])
    write(tmp_path / "ETH-USDT-30m.csv", [line(index, step_ms=HOUR_MS // 2) for index in range(4)])
    _, batches = replay(tmp_path)
    assert [[f"{candle.symbol} {candle.timeframe}" for candle in batch] for batch in batches] == [
        ["ETH-USDT 30m"],
        ["ETH-USDT 1h", "ETH-USDT 30m"],
        ["ETH-USDT 30m"],
        ["ETH-USDT 1h", "ETH-USDT 30m", "ZEC-USDT 1h"],
    ]
    closes = [{candle.close_time for candle in batch} for batch in batches]
    assert all(len(close) == 1 for close in closes)
    assert sorted(closes, key=min) == closes


def test_one_file_may_hold_many_series_in_any_order(tmp_path: Path) -> None:
    rows = [f"{line(hour)},{symbol},{frame}" for symbol in ("B", "A") for frame in ("1H", "1h") for hour in (0, 1)]
    path = write(tmp_path / "all.csv", rows, "timestamp,open,high,low,close,volume,Symbol,Timeframe")
    feed, batches = replay(path)
    assert [[candle.symbol for candle in batch] for batch in batches] == [["A", "B"], ["A", "B"]]
    assert feed.report.rejected == {"duplicate": 4}
    assert feed.report.reordered == 3


def test_symbol_may_come_from_a_column_and_timeframe_from_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "prices-1h.csv", [f"{line(0)},BTC/USDT"], "timestamp,open,high,low,close,volume,pair")
    _, batches = replay(path)
    assert batches[0][0].symbol == "BTC/USDT"
    assert batches[0][0].timeframe is Timeframe.H1


def test_the_same_row_again_is_a_duplicate_and_other_values_are_a_correction(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USDT-1h.csv", [line(0), line(0), line(0, 2.5), line(0, 2.5), line(0, 2.0), line(1)])
    feed, batches = replay(path)
    assert [batch[0].close for batch in batches] == [2.0, 2.5, 2.0, 2.0]
    assert feed.report.rejected == {"duplicate": 2}
    assert feed.report.accepted == 4
    assert feed.report.gaps == 0


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_the_later_path_corrects_the_earlier_one(tmp_path: Path, first: str, second: str) -> None:
    one = write(tmp_path / first / "BTC-USDT-1h.csv", [line(0, 2.0), line(1)])
    other = write(tmp_path / second / "BTC-USDT-1h.csv", [line(0, 2.9), line(1)])
    feed, batches = replay(one.parent, other.parent)
    assert [batch[0].close for batch in batches] == [2.0, 2.9, 2.0]
    assert feed.report.rejected == {"duplicate": 1}


def test_a_path_named_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "BTC-USDT-1h.csv", [line(0)])
    feed, _ = replay(tmp_path, tmp_path)
    assert (feed.report.accepted, feed.report.rejected.total()) == (1, 0)


def test_gaps_are_counted_and_not_filled(tmp_path: Path) -> None:
    write(tmp_path / "BTC-USDT-1h.csv", [line(hour) for hour in (0, 1, 4, 5, 9)])
    write(tmp_path / "ETH-USDT-1h.csv", [line(hour) for hour in (3, 4)])
    feed, batches = replay(tmp_path)
    assert feed.report.gaps == 2
    assert len(flatten(batches)) == 7


def test_files_of_one_series_continue_each_other_without_a_gap(tmp_path: Path) -> None:
    for day in range(3):
        write(tmp_path / f"day{day}" / "BTC-USDT-1h.csv", [line(24 * day + hour) for hour in range(24)])
    feed, batches = replay(tmp_path)
    assert len(batches) == 72
    assert feed.report.gaps == 0


def test_more_overlapping_files_than_may_be_open_are_sorted_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        write(tmp_path / f"S{number}-1h.csv", [line(hour) for hour in range(10)])
    _, expected = replay(tmp_path)
    monkeypatch.setattr(replay_module, "MOST_OPEN_FILES", 2)
    feed, batches = replay(tmp_path)
    assert batches == expected
    assert feed.report.accepted == 50


def test_nothing_to_read_is_an_error_that_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"no-such: expected a candle file or a folder of them, found no such path"):
        list(ReplayFeed([tmp_path / "no-such"]).batches())
    with pytest.raises(FeedError, match=r"expected candle files \(.*\.csv\.gz.*\), found none"):
        list(ReplayFeed([tmp_path]).batches())


def test_one_path_without_files_does_not_stop_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USDT-1h.csv", [line(0)])
    feed, batches = replay(tmp_path / "no-such", path)
    assert len(batches) == 1
    assert "no such path" in feed.report.unreadable[0]


def test_progress_runs_from_unknown_to_one(tmp_path: Path) -> None:
    feed = ReplayFeed([write(tmp_path / "BTC-USDT-1h.csv", [line(0), line(1), line(1), line(2)])])
    assert feed.progress() is None
    batches = feed.batches()
    next(batches)
    assert feed.progress() == 0.25
    list(batches)
    assert feed.progress() == 1.0


def test_report_counts_while_the_replay_runs(tmp_path: Path) -> None:
    feed = ReplayFeed([write(tmp_path / "BTC-USDT-1h.csv", [line(0), line(1)])])
    counted = [feed.report.accepted for _ in feed.batches()]
    assert counted == [1, 2]


def test_source_names_the_paths(tmp_path: Path) -> None:
    feed: Feed = ReplayFeed([tmp_path / "a", tmp_path / "b"])
    assert feed.source == f"replay:{tmp_path / 'a'},{tmp_path / 'b'}"


class FakeTime:
    """A clock that moves only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def test_speed_is_a_factor_of_real_time(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USDT-1h.csv", [line(0), line(1), line(4)])
    time = FakeTime()
    feed = ReplayFeed([path], speed=120, wait=time.wait, clock=lambda: time.now)
    moments = [time.now for _ in feed.batches()]
    assert moments == [0.0, 30.0, 120.0]
    assert max(time.waits) <= 60.0


def test_a_slow_consumer_is_not_waited_for_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USDT-1h.csv", [line(0), line(1), line(2)])
    time = FakeTime()
    for _ in ReplayFeed([path], speed=3600, wait=time.wait, clock=lambda: time.now).batches():
        time.now += 0.75
    assert time.waits == [0.25, 0.25]


def test_stop_ends_the_wait_and_the_replay(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USDT-1h.csv", [line(0), line(1), line(2)])
    stop = threading.Event()

    def stop_instead_of_waiting(_: float) -> None:
        stop.set()

    feed = ReplayFeed([path], speed=1, stop=stop, wait=stop_instead_of_waiting, clock=lambda: 0.0)
    assert len(list(feed.batches())) == 1
    assert feed.report.accepted == 1


def test_stop_from_another_thread_interrupts_a_real_wait(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USDT-1h.csv", [line(0), line(1)])
    stop = threading.Event()
    batches = ReplayFeed([path], speed=0.001, stop=stop).batches()
    next(batches)
    threading.Timer(0.01, stop.set).start()
    assert list(batches) == []


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(tmp_path: Path, speed: float) -> None:
    with pytest.raises(ConfigurationError, match="expected a factor above 0"):
        ReplayFeed([tmp_path], speed=speed)


def test_a_stop_before_the_start_hands_nothing_on(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    feed = ReplayFeed([write(tmp_path / "BTC-USDT-1h.csv", [line(1), line(0)])], stop=stop)
    assert list(feed.batches()) == []
