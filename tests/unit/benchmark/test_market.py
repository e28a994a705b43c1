import numpy as np

from app.benchmark.market import TIMEFRAME, Close, HandedFeed, Market
from app.benchmark.windows import Row, Windows, row_of
from app.domain.candles import Candle
from app.strategies.bars import Bars

SYMBOLS = ["a.0", "a.1", "a.2"]
LENGTH = 8


def flat(closes: list[Close]) -> list[Candle]:
    return [candle for close in closes for candle in close]


def test_a_market_goes_on_where_it_was_left_even_within_a_close():
    market, whole = Market(SYMBOLS, seed=1), Market(SYMBOLS, seed=1)
    parts = flat(market.take(2)) + flat(market.take(3)) + flat(market.take(4))

    assert parts == flat(whole.take(9))
    assert [candle.symbol for candle in parts] == SYMBOLS * 3


def test_candles_of_one_close_are_taken_together():
    assert [len(close) for close in Market(SYMBOLS, seed=1).take(7)] == [3, 3, 1]


def test_a_handed_feed_yields_what_it_is_handed_until_it_is_ended():
    feed, closes = HandedFeed(), Market(SYMBOLS, seed=1).take(6)
    feed.hand(closes)
    feed.end()

    assert list(feed.batches()) == closes
    assert feed.report.accepted == 6


def expected(candles: list[Candle]) -> Bars:
    return Bars.from_candles(candles[-LENGTH:])


def assert_same(found: Bars, wanted: Bars) -> None:
    assert found.symbol == wanted.symbol
    for name in ("open_time", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_a_window_of_the_baselines_is_what_the_candles_say_however_long_it_goes_on():
    candles = flat(Market(["a.0"], seed=1).take(5 * LENGTH))
    windows = Windows(TIMEFRAME, LENGTH)
    for number, candle in enumerate(candles, 1):
        assert_same(windows.at("a.0", row_of(candle)).bars, expected(candles[:number]))


def test_jobs_of_one_candle_share_its_indicators():
    (candle,) = flat(Market(["a.0"], seed=1).take(1))
    windows = Windows(TIMEFRAME, LENGTH)

    assert windows.at("a.0", row_of(candle)) is windows.at("a.0", row_of(candle))


def test_a_gap_is_filled_from_where_the_candles_are_kept():
    candles = flat(Market(["a.0"], seed=1).take(6))
    asked: list[tuple[str, int, int]] = []

    def load(symbol: str, after_ms: int, until_ms: int) -> list[Row]:
        asked.append((symbol, after_ms, until_ms))
        return [row for row in map(row_of, candles) if after_ms < row[0] <= until_ms]

    windows = Windows(TIMEFRAME, LENGTH, load)
    windows.at("a.0", row_of(candles[1]))
    found = windows.at("a.0", row_of(candles[5])).bars

    assert_same(found, expected(candles))
    assert [int(row_of(candles[1])[0]), int(row_of(candles[5])[0])] == list(asked[-1][1:])


def test_an_older_candle_is_answered_on_its_own_window():
    candles = flat(Market(["a.0"], seed=1).take(6))
    windows = Windows(TIMEFRAME, LENGTH)
    for candle in candles:
        windows.at("a.0", row_of(candle))

    assert_same(windows.at("a.0", row_of(candles[3])).bars, expected(candles[:4]))
