"""The helper of strategies' own tests: it lets what is right pass, and says what is wrong with the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.strategies.builtin import BUILTINS
from app.strategies.sdk import Strategy
from app.testing import build_bars, check, check_definitions, evaluate, generate_bars
from tests.quant import higher, wrong


def test_right_strategy_passes_with_figures() -> None:
    report = check(higher.FollowsHigher, timeframe="15m")
    assert report.passed and report.figures.evaluations > 1000


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (wrong.PeeksAhead, r"PeeksAhead does not pass the gate: prefix \(peeks_ahead\) at \S+ 1h 20\S+: expected .*"),
        (higher.PeeksIntoTheHigherCandle, r"prefix \(centred_window\)"),
        (wrong.IsRandom, r"determinism \(random\)"),
        (wrong.KeepsState, r"determinism \((random|state)\)"),
        (wrong.WarmsUpTooShortly, r"warmup \(warmup_too_short\)"),
    ],
)
def test_wrong_strategies_do_not(cls: type[Strategy], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check(cls)


def test_definitions_are_checked_on_a_timeframe_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[strategies.mine]\nimplementation = "tests.quant.higher:FollowsHigher"\ntimeframes = ["2h"]\n')
    (report,) = check_definitions(path, modules=("tests.quant",))
    assert (report.strategy, report.passed) == ("mine", True)


def test_bars_are_built_from_closes() -> None:
    bars = build_bars([100.0, 104.0, 99.0], timeframe="4h", volume=7.0)
    assert bars.open.tolist() == [100.0, 100.0, 104.0]
    assert (bars.high.tolist(), bars.low.tolist()) == ([100.0, 104.0, 104.0], [100.0, 100.0, 99.0])
    assert (bars.open_time[1:] - bars.open_time[:-1]).tolist() == [4 * 3_600_000] * 2
    assert bars.volume.tolist() == [7.0] * 3


def test_generated_bars_are_always_the_same() -> None:
    strategy = BUILTINS["ema_cross"]()
    assert evaluate(strategy, generate_bars()) == evaluate(strategy, generate_bars())
    assert len(generate_bars(30, timeframe="5m")) == 30
