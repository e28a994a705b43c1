"""A definition subscribes to timeframes that its strategy can answer on, within the workers' window."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.definitions import load_definitions
from app.errors import ConfigurationError
from app.strategies.registry import Registry

FOLLOWS = "tests.quant.higher:FollowsHigher"  # an average of five four-hour candles, and the last day


def load(folder: Path, timeframes: str, window: int = 512) -> None:
    path = folder / "definitions.toml"
    path.write_text(f'[strategies.mine]\nimplementation = "{FOLLOWS}"\ntimeframes = {timeframes}\n')
    load_definitions(path, Registry(("tests.quant",)), window)


@pytest.mark.parametrize("timeframes", ['["1h"]', '["15m", "1h", "2h"]'])
def test_fitting_timeframes_are_taken(tmp_path: Path, timeframes: str) -> None:
    load(tmp_path, timeframes)


@pytest.mark.parametrize(
    ("timeframes", "words"),
    [
        ('["4h"]', "timeframes: its higher timeframes allow 1m, 3m, 5m, 15m, 30m, 1h, 2h; found 4h$"),
        ('["1h", "8h", "1w"]', "timeframes: its higher timeframes allow .*; found 8h, 1w$"),
        ('["*"]', "timeframes: its higher timeframes allow .*; found 4h, 6h, 8h, 12h, 1d, 1w$"),
        # the average settles within 12 candles of four hours, which may begin and end in the middle: 13 * 240 - 1
        ('["1h", "1m"]', "params: need 3119 candles of warm-up on 1m, found a window of 512: shorten"),
        ('["2d"]', "timeframes: unknown timeframe '2d'"),
    ],
)
def test_others_are_refused_by_name(tmp_path: Path, timeframes: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load(tmp_path, timeframes)
    assert re.search(words, str(error.value))
    assert str(error.value).count("\n") == 1


def test_wider_window_lets_a_faster_timeframe_in(tmp_path: Path) -> None:
    load(tmp_path, '["1m"]', window=3119)
