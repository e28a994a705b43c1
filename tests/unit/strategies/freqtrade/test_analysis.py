from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talib

from app.errors import ConfigurationError, StrategyError
from app.strategies.bars import Bars
from app.strategies.freqtrade.analysis import analyse, pair_of
from app.strategies.freqtrade.loading import load_file
from tests.unit.strategies.freqtrade.sources import TREND, strategy, written
from tests.unit.strategies.freqtrade.test_frame import picked
from tests.unit.strategies.market import random_walk

WALK = random_walk(400)
CANDLE = r"strategy 'Mine' on BTC-USDT 1h candle opened 1970-01-01T09:00:00\+00:00: "


def rows(cells: Any) -> list[int]:
    return [int(row) for row in np.flatnonzero(cells)]


def test_trend_by_hand(tmp_path: Path) -> None:
    found = analyse(load_file(written(tmp_path, TREND)), WALK)
    fast, slow = talib.EMA(WALK.close, 5), talib.EMA(WALK.close, 15)
    up, down = [], []
    for row in range(1, len(WALK)):
        if fast[row] > slow[row] and fast[row - 1] <= slow[row - 1] and WALK.volume[row] > 0:
            up.append(row)
        if fast[row] < slow[row] and fast[row - 1] >= slow[row - 1]:
            down.append(row)
    assert len(up) > 5 and len(down) > 5
    assert (rows(found.enter_long), rows(found.exit_long)) == (up, down)
    assert not found.enter_short.any() and not found.exit_short.any(), "columns that are missing are no signals"
    assert [row for row, tag in enumerate(found.enter_tag) if tag == "up"] == up
    assert set(found.exit_tag) == {None}
    assert rows(found.action == 1) == up
    assert (found.startup, found.warnings) == (60, ())


def test_reversion_on_both_sides_by_hand(tmp_path: Path) -> None:
    source = strategy(
        tmp_path,
        body="can_short = True",
        indicators="df['rsi'] = ta.RSI(df, 14)\nb = qtpylib.bollinger_bands(df['close'], window=20, stds=2)\n"
        "df['low_band'], df['high_band'] = b['lower'], b['upper']",
        entry="df.loc[(df['rsi'] < 35) & (df['close'] < df['low_band']), 'enter_long'] = 1\n"
        "df.loc[(df['rsi'] > 65) & (df['close'] > df['high_band']), 'enter_short'] = 1",
        leave="df.loc[df['rsi'] > 50, 'exit_long'] = 1\ndf.loc[df['rsi'] < 50, 'exit_short'] = 1",
    )
    found, rsi = analyse(source, WALK), talib.RSI(WALK.close, 14)
    windows = [WALK.close[max(0, row - 19) : row + 1] for row in range(len(WALK))]
    spread = np.array([2 * window.std(ddof=1) if len(window) > 1 else np.nan for window in windows])
    middle = np.array([window.mean() for window in windows])
    long, short = (rsi < 35) & (WALK.close < middle - spread), (rsi > 65) & (WALK.close > middle + spread)
    assert long.any() and short.any()
    assert rows(found.enter_long) == rows(long) and rows(found.enter_short) == rows(short)
    assert rows(found.exit_long) == rows(rsi > 50) and rows(found.exit_short) == rows(rsi < 50)
    assert np.array_equal(found.action, long.astype(int) - short.astype(int))


@pytest.mark.parametrize(
    ("cells", "counting"),
    [
        ("[0, 1, 1.0, 0.999, 2, -1, np.nan, 1, 0, 1]", [1, 2, 7, 9]),
        ("[True, False, True, True, False, False, False, False, False, True]", [0, 2, 3, 9]),
        ("['1', 1, True, 'x', None, np.nan, 1.0, [1], pd.NA, 0.999]", [1, 2, 6]),
        ("pd.array([1, 0, None, 1, 0, 0, 0, 0, 0, 1], dtype='Int64')", [0, 3, 9]),
        ("pd.array([True, None, False] + [False] * 7, dtype='boolean')", [0]),
        ("['1'] * 10", []),
        ("1", list(range(10))),
        ("pd.Categorical([1, 0] * 5)", [0, 2, 4, 6, 8]),
    ],
)
def test_a_cell_counts_when_it_equals_one(tmp_path: Path, cells: str, counting: list[int]) -> None:
    source = strategy(tmp_path, head="import pandas as pd", entry=f"df['enter_long'] = {cells}")
    assert rows(analyse(source, random_walk(10)).enter_long) == counting


@pytest.mark.parametrize(
    ("entry", "leave", "can_short", "action"),
    [
        ("df['enter_long'] = 1", "", False, 1),
        ("df['enter_long'] = 1", "df['exit_long'] = 1", False, 0),
        ("df['enter_long'] = 1", "df['exit_short'] = 1", False, 1),
        ("df['enter_long'] = df['enter_short'] = 1", "", True, 0),
        ("df['enter_long'] = df['enter_short'] = 1", "", False, 0),
        ("df['enter_short'] = 1", "", True, -1),
        ("df['enter_short'] = 1", "", False, 0),
        ("df['enter_short'] = 1", "df['exit_short'] = 1", True, 0),
        ("df['enter_short'] = 1", "df['exit_long'] = 1", True, -1),
        ("", "df['exit_long'] = 1", False, 0),
    ],
)
def test_an_entry_counts_alone(tmp_path: Path, entry: str, leave: str, can_short: bool, action: int) -> None:
    found = analyse(strategy(tmp_path, body=f"can_short = {can_short}", entry=entry, leave=leave), random_walk(10))
    assert found.action.dtype == np.int8
    assert list(found.action) == [action] * 10


def test_tags_are_text_or_nothing(tmp_path: Path) -> None:
    entry = "df.loc[3, 'enter_tag'] = 'three'\ndf.loc[4, 'enter_tag'] = np.nan"
    found = analyse(strategy(tmp_path, entry=entry, leave="df['exit_tag'] = 7"), random_walk(10))
    assert found.enter_tag == (None, None, None, "three", *[None] * 6)
    assert found.exit_tag == (None,) * 10


def test_the_old_methods_still_count(tmp_path: Path) -> None:
    text = """
    from freqtrade.strategy.interface import IStrategy
    class Old(IStrategy):
        INTERFACE_VERSION = 2
        stoploss = -0.1
        def populate_indicators(self, df, metadata):
            return df
        def populate_buy_trend(self, df, metadata):
            df.loc[2, ["buy", "buy_tag"]] = (1, "old")
            return df
        def populate_sell_trend(self, df, metadata):
            df.loc[df["enter_long"] == 1, "sell"] = 1
            return df
    """
    found = analyse(load_file(written(tmp_path, text)), random_walk(10))
    assert (rows(found.enter_long), rows(found.exit_long), found.enter_tag[2]) == ([2], [2], "old")


def test_rows_in_a_loop(tmp_path: Path) -> None:
    entry = """
    level = 0.0
    for row in range(1, len(df)):
        level = 0.5 * level + df["close"].iat[row] - df["close"].iat[row - 1]
        df.loc[row, "enter_long"] = int(level > 0)
    """
    found, level, expected = analyse(strategy(tmp_path, entry=entry), WALK), 0.0, []
    for row in range(1, len(WALK)):
        level = 0.5 * level + WALK.close[row] - WALK.close[row - 1]
        expected += [row] if level > 0 else []
    assert rows(found.enter_long) == expected


def test_state_on_the_strategy_does_not_outlive_an_analysis(tmp_path: Path) -> None:
    body = "seen = []\nshared = {'runs': 0}"
    entry = "self.seen.append(1)\nself.shared['runs'] += 1\nself.mine = len(self.seen) + self.shared['runs']\n"
    entry += "df.loc[:, 'enter_long'] = int(self.mine == 2)"
    source = strategy(tmp_path, body=body, entry=entry)
    for _ in range(3):
        assert analyse(source, random_walk(10)).enter_long.all()
    assert vars(source.cls)["seen"] == []


def test_what_a_strategy_is_told(tmp_path: Path) -> None:
    indicators = """
    assert metadata == {"pair": "BTC/USDT"}, metadata
    assert self.timeframe == self.config["timeframe"] == "1h"
    assert self.config["stake_currency"] == "USDT"
    assert self.dp.runmode.value == self.config["runmode"].value == "backtest"
    assert self.dp.current_whitelist() == ["BTC/USDT"]
    assert self.dp.market("BTC/USDT")["quote"] == "USDT"
    assert self.dp.available_pairs == [("BTC/USDT", "1h")]
    assert list(df.columns) == ["date", "open", "high", "low", "close", "volume"]
    """
    source = strategy(
        tmp_path, body='timeframe = "5m"', indicators=indicators, entry="assert (df.enter_tag == '').all()"
    )
    assert len(analyse(source, random_walk(10)).open_time) == 10


def test_symbols_are_pairs() -> None:
    assert [pair_of(symbol) for symbol in ("BTC-USDT", "A-B-EUR", "SPX")] == ["BTC/USDT", "A-B/EUR", "SPX"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("df = df.dropna(subset=['open']).iloc[1:]", "expected as many rows as candles, 10, found 9"),
        ("df = df.iloc[:-1]", "expected as many rows as candles, 10, found 9"),
        ("df['close'] = df['close'] * 2", "expected the last close to stay .*, found "),
        ("df.loc[9, 'close'] = np.nan", "expected the last close to stay .*, found nan"),
        ("df['date'] = df['date'].shift(1)", "expected the last date to stay 1970-01-01 09:00:00.*, found 1970"),
        ("df = df.drop(columns='date')", "expected the column date to be left in the frame, found it gone"),
        ("df = None", "populate_indicators: expected the DataFrame back, found NoneType"),
        ("df = df['close']", "populate_indicators: expected the DataFrame back, found Series"),
        ("df['a'] = df['missing']", r"populate_indicators \(mine\.py, line \d+\): KeyError: 'missing'"),
        ("raise SystemExit(1)", r"populate_indicators \(mine\.py, line \d+\): SystemExit: 1"),
        (
            "df.insert(6, 'enter_long', 1)\ndf.insert(6, 'enter_long', 1, True)",
            "expected one column enter_long, fou",
        ),
    ],
)
def test_wrong_answers_name_strategy_candle_and_what_was_expected(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(StrategyError, match=CANDLE + words):
        analyse(strategy(tmp_path, indicators=code), random_walk(10))


def test_errors_name_the_method(tmp_path: Path) -> None:
    for method in ("entry", "leave"):
        with pytest.raises(StrategyError, match=r"populate_e\w+_trend .*ZeroDivisionError"):
            analyse(strategy(tmp_path, **{method: "1 / 0"}), random_walk(10))


def test_memory_that_runs_out_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        analyse(strategy(tmp_path, indicators="raise MemoryError"), random_walk(10))


def test_assignments_that_are_lost_are_told(tmp_path: Path) -> None:
    found = analyse(strategy(tmp_path, entry="df['enter_long'] = 0\ndf['enter_long'][3] = 1"), random_walk(10))
    assert not found.enter_long.any(), "pandas 3 assigns to a copy"
    assert [text.partition(":")[0] for text in found.warnings] == ["ChainedAssignmentError"]


def test_gaps_are_analysed_as_flat_candles(tmp_path: Path) -> None:
    source = strategy(tmp_path, entry="df['enter_long'] = (df['volume'] == 0).astype(int)")
    found = analyse(source, picked(random_walk(10, volatility=0.02), [0, 1, 5, 9]))
    assert len(found.open_time) == 10
    assert {2, 3, 4, 6, 7, 8} <= set(rows(found.enter_long))
    assert list(found.places) == [0, 1, 5, 9]


def test_no_candle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one candle"):
        analyse(strategy(tmp_path), WALK.first(0))


INFORMATIVE_HEAD = "from freqtrade.strategy import informative, merge_informative_pair"
FOUR_HOURS = """
@informative("4h")
def populate_indicators_4h(self, df, metadata):
    assert metadata == {"pair": "BTC/USDT", "timeframe": "4h"}
    df["mean"] = ta.SMA(df, timeperiod=3)
    return df
"""


def mean_of_closed_four_hours(bars: Bars, row: int) -> float:
    """The mean of the last three four-hour closes that are known when candle `row` has closed."""
    closed = [bars.close[4 * number + 3] for number in range((row + 1) // 4)]
    return float(np.mean(closed[-3:])) if len(closed) >= 3 else np.nan


def test_a_slower_timeframe_shows_closed_candles_only(tmp_path: Path) -> None:
    bars = random_walk(60)
    keep = "type(self).kept = df.copy()"
    by_decorator = strategy(tmp_path, head=INFORMATIVE_HEAD, body=FOUR_HOURS, leave=keep)
    by_hand = """
    slow = self.dp.get_pair_dataframe(metadata["pair"], "4h")
    slow["mean"] = ta.SMA(slow, timeperiod=3)
    df = merge_informative_pair(df, slow, self.timeframe, "4h", ffill=True)
    """
    for source in (by_decorator, strategy(tmp_path, head=INFORMATIVE_HEAD, indicators=by_hand, leave=keep)):
        analyse(source, bars)
        kept: Any = vars(source.cls)["kept"]
        expected = [mean_of_closed_four_hours(bars, row) for row in range(60)]
        assert kept["mean_4h"].to_numpy() == pytest.approx(expected, nan_ok=True)
        assert {"date_4h", "open_4h", "close_4h", "volume_4h"} <= set(kept.columns)


def test_without_filling_a_slow_value_stands_on_its_closing_row(tmp_path: Path) -> None:
    indicators = (
        "df = merge_informative_pair(df, self.dp.get_pair_dataframe('BTC/USDT', '4h'), '1h', '4h', ffill=False)"
    )
    source = strategy(
        tmp_path, head=INFORMATIVE_HEAD, indicators=indicators, entry="df['enter_long'] = df['close_4h'].notna()"
    )
    assert rows(analyse(source, random_walk(14)).enter_long) == [3, 7, 11]


@pytest.mark.parametrize(
    ("options", "column"),
    [
        ("'4h'", "mean_4h"),
        ("'4h', 'BTC/{stake}'", "btc_usdt_mean_4h"),
        ("'4h', fmt='{BASE}_{quote}_{column}'", "BTC_usdt_mean"),
        ("'4h', 'BTC/USDT', fmt=lambda **words: words['asset'] + words['column']", "BTC/USDTmean"),
    ],
)
def test_merged_columns_are_called_as_asked(tmp_path: Path, options: str, column: str) -> None:
    body = f"@informative({options})\ndef slow(self, df, metadata):\n    df['mean'] = df['close']\n    return df"
    source = strategy(tmp_path, head=INFORMATIVE_HEAD, body=body, entry=f"df['enter_long'] = df[{column!r}].notna()")
    assert rows(analyse(source, random_walk(10)).enter_long) == [3, 4, 5, 6, 7, 8, 9]


def test_columns_of_one_name_twice_are_refused(tmp_path: Path) -> None:
    body = FOUR_HOURS + FOUR_HOURS.replace("indicators_4h", "indicators_again")
    with pytest.raises(StrategyError, match="expected new column names, found close_4h, date_4h"):
        analyse(strategy(tmp_path, head=INFORMATIVE_HEAD, body=body), random_walk(30))


def test_another_pair_is_refused(tmp_path: Path) -> None:
    body = FOUR_HOURS.replace('"4h")', '"4h", "ETH/{stake}")', 1)
    with pytest.raises(ConfigurationError, match=r"candles of ETH/USDT \(4h\) are not offered"):
        analyse(strategy(tmp_path, head=INFORMATIVE_HEAD, body=body), random_walk(30))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("merge_informative_pair(df, df.copy(), '1h', '5m')", "expected a series not faster than 1h, found 5m"),
        ("merge_informative_pair(df, df.copy(), '1h', '1h', suffix='x')", "found both"),
        ("merge_informative_pair(df, df.copy(), '1h', 'hourly')", "expected a timeframe such as 5m"),
    ],
)
def test_merges_that_make_no_sense_are_refused(tmp_path: Path, call: str, words: str) -> None:
    with pytest.raises((StrategyError, ConfigurationError), match=words):
        analyse(strategy(tmp_path, head=INFORMATIVE_HEAD, indicators=call), random_walk(10))
