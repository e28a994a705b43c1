from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.domain.candles import Timeframe
from app.errors import StrategyError
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.freqtrade.analysis import analyse
from app.strategies.freqtrade.loading import Source, load_file
from app.strategies.freqtrade.native import adapt
from app.strategies.freqtrade.support import describe_unsupported
from app.strategies.sdk import Strategy
from tests.unit.strategies.freqtrade.sources import TREND, strategy, written
from tests.unit.strategies.freqtrade.test_frame import picked
from tests.unit.strategies.market import random_walk

WALK = random_walk(600)


def native(source: Source) -> Strategy:
    return adapt(source)(name="mine")


def test_the_last_candle_of_a_window_is_answered(tmp_path: Path) -> None:
    source = load_file(written(tmp_path, TREND))
    mine, whole = native(source), analyse(source, WALK)
    entered = int(np.flatnonzero(whole.enter_long)[-1])
    left = int(np.flatnonzero(whole.exit_long)[-1])
    signal, close = evaluate(mine, WALK.first(entered + 1)), float(WALK.close[entered])
    assert (signal.action, signal.strength, signal.edge) == (1, 1.0, None)
    assert [signal.stop, signal.target] == pytest.approx([close * 0.9, close * 1.04])
    assert signal.extras == {
        "enter_long": 1,
        "exit_long": 0,
        "enter_short": 0,
        "exit_short": 0,
        "enter_tag": "up",
        "minimal_roi": {"60": 0.01, "0": 0.04},
        "trailing": {"positive": 0.01, "offset": 0.0, "only_offset_is_reached": False},
    }
    signal = evaluate(mine, WALK.first(left + 1))
    assert (signal.action, signal.strength, signal.stop, signal.target) == (0, 0.0, None, None)
    assert signal.extras == {"enter_long": 0, "exit_long": 1, "enter_short": 0, "exit_short": 0}


def test_a_short_entry_has_its_stop_above(tmp_path: Path) -> None:
    source = strategy(tmp_path, body="can_short = True\nminimal_roi = {0: 0.05}", entry="df['enter_short'] = 1")
    signal, close = evaluate(native(source), WALK), float(WALK.close[-1])
    assert signal.action == -1
    assert [signal.stop, signal.target] == pytest.approx([close * 1.1, close * 0.95])


@pytest.mark.parametrize(
    ("body", "stop", "target"),
    [
        ("stoploss = -1\nminimal_roi = {'10': 0.1}", None, None),
        ("stoploss = -0.99\nminimal_roi = {'0': 100}", 0.01, 101.0),
        ("stoploss = -0.5\nminimal_roi = {'0': 0}", 0.5, None),
    ],
)
def test_levels_that_are_none_are_not_stated(
    tmp_path: Path, body: str, stop: float | None, target: float | None
) -> None:
    signal = evaluate(native(strategy(tmp_path, body=body, entry="df['enter_long'] = 1")), WALK)
    close = float(WALK.close[-1])
    assert signal.stop == (None if stop is None else pytest.approx(close * stop))
    assert signal.target == (None if target is None else pytest.approx(close * target))


def test_the_warm_up_is_the_start_up(tmp_path: Path) -> None:
    mine = native(load_file(written(tmp_path, TREND)))
    assert mine.warmup == 60
    assert evaluate(mine, WALK.first(59)).extras == {"warmup": 1}
    assert native(strategy(tmp_path)).warmup == 1


@pytest.mark.parametrize(
    "body",
    [
        "@informative('4h')\ndef slow(self, df, metadata):\n    return df",
        "def informative_pairs(self):\n    return [(pair, '4h') for pair in self.dp.current_whitelist()]",
    ],
)
def test_the_start_up_of_a_slower_series_is_in_its_candles(tmp_path: Path, body: str) -> None:
    head = "from freqtrade.strategy import informative"
    assert native(strategy(tmp_path, head=head, body=f"startup_candle_count = 20\n{body}")).warmup == 80


def test_parameters_of_a_definition_reach_the_strategy(tmp_path: Path) -> None:
    source = strategy(
        tmp_path,
        head="from freqtrade.strategy import IntParameter",
        body="buy_on = IntParameter(0, 1, default=0)",
        entry="df['enter_long'] = self.buy_on.value",
    )
    adapted = adapt(source)
    assert evaluate(adapted(adapted.Params.model_validate({"buy_on": 1})), WALK).action == 1
    assert evaluate(adapted(), WALK).action == 0, "another definition of the same class is not touched"


def test_windows_with_gaps_answer_for_their_candles(tmp_path: Path) -> None:
    source = strategy(tmp_path, entry="df['enter_long'] = (df['close'].diff() > 0).astype(int)")
    bars = picked(WALK, [*range(0, 50), *range(53, 90), 95, 96])
    answer = native(source).signals(bars, {})
    assert len(answer.action) == len(bars)
    assert np.array_equal(answer.action[1:], (np.diff(bars.close) > 0).astype(np.int8))


def test_live_windows_are_told_so(tmp_path: Path) -> None:
    source = strategy(tmp_path, entry="df['enter_long'] = int(self.dp.runmode.value in ('live', 'dry_run'))")
    assert evaluate(native(source), WALK).action == 1


def test_the_timeframe_of_the_candles_is_in_force(tmp_path: Path) -> None:
    source = strategy(tmp_path, body="timeframe = '5m'", entry="df['enter_long'] = int(self.timeframe == '1h')")
    assert WALK.timeframe is Timeframe.H1
    assert evaluate(native(source), WALK).action == 1


def test_errors_reach_the_caller_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match=r"'Mine' on BTC-USDT 1h candle opened .* ZeroDivisionError"):
        evaluate(native(strategy(tmp_path, entry="1 / 0")), WALK)


EVERYTHING = """
use_custom_stoploss = True
position_adjustment_enable = True
exit_profit_only = True
use_exit_signal = False
minimal_roi = {"0": 0.1, "30": 0.05}
@property
def protections(self):
    return [{"method": "CooldownPeriod"}]
def custom_stoploss(self, pair, trade, current_time, current_rate, current_profit, **kwargs):
    return -0.05
def leverage(self, **kwargs):
    return 3.0
"""


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    adapted = adapt(strategy(tmp_path, body=EVERYTHING))
    said = "\n".join(adapted.notes)
    for words in ("custom_stoploss() is never called", "leverage() is never", "protections is not", "exit_profit_only"):
        assert words in said
    assert "position_adjustment_enable" in said and "use_exit_signal" in said and "extras.minimal_roi" in said
    with capture_logs() as logs:
        adapted(name="mine")
    assert [(entry["strategy"], entry["left_out"]) for entry in logs] == [("mine", adapted.notes)]


def test_a_strategy_of_signals_alone_leaves_nothing_out(tmp_path: Path) -> None:
    source = strategy(tmp_path, body="minimal_roi = {'0': 0.1}\ndef informative_pairs(self):\n    return []")
    assert describe_unsupported(source.cls) == ()
    with capture_logs() as logs:
        native(source)
    assert logs == []


CAUSAL: dict[str, Any] = {
    "head": "from freqtrade.strategy import informative",
    "body": "can_short = True\nstartup_candle_count = 30\n"
    "@informative('4h')\ndef slow(self, df, metadata):\n    df['mean'] = ta.SMA(df, timeperiod=5)\n    return df",
    "indicators": "df['mean'] = qtpylib.sma(df['close'], 10)\ndf['top'] = df['high'].rolling(20).max().shift(1)\n"
    "b = qtpylib.bollinger_bands(df['close'], 20, 1.5)\ndf['low_band'] = b['lower']",
    "entry": "up = qtpylib.crossed_above(df['close'], df['mean'])\n"
    "df.loc[up & (df['close'] > df['mean_4h']), 'enter_long'] = 1\n"
    "df.loc[df['close'] < df['low_band'], ['enter_short', 'enter_tag']] = (1, 'band')",
    "leave": "df.loc[df['close'] > df['top'], 'exit_short'] = 1\n"
    "df.loc[qtpylib.crossed_below(df['close'], df['mean']), 'exit_long'] = 1",
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), at=st.integers(150, 399), window=st.integers(130, 150))
def test_a_rolling_window_answers_as_the_whole_file_does(tmp_path: Path, seed: int, at: int, window: int) -> None:
    source, bars = strategy(tmp_path, **CAUSAL), random_walk(400, seed)
    whole, mine = analyse(source, bars), native(source)
    signal = evaluate(mine, bars.first(at + 1).last(window))
    assert mine.warmup == 120
    assert signal.action == whole.action[at]
    for name in ("enter_long", "exit_long", "enter_short", "exit_short"):
        assert signal.extras[name] == int(getattr(whole, name)[at])
    assert signal.extras.get("enter_tag") == whole.enter_tag[at]


def test_every_prefix_of_a_window_answers_the_same(tmp_path: Path) -> None:
    source, bars = strategy(tmp_path, **CAUSAL), random_walk(200)
    whole = native(source).signals(bars, {}).action
    assert set(whole) == {-1, 0, 1}
    for count in range(130, 200, 7):
        assert np.array_equal(native(source).signals(_prefix(bars, count), {}).action, whole[:count])


def _prefix(bars: Bars, count: int) -> Bars:
    return bars.first(count)
