"""TA-Lib without pandas, until somebody uses pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from app.strategies.compiled import functions, talib
from tests.unit.strategies.market import random_walk

#: In a process of its own: here, pandas has been imported by other tests.
USES_PANDAS_LATER = """
import sys
from app.strategies.compiled import talib
assert "pandas" not in sys.modules, "TA-Lib has imported pandas"

import pandas
import talib.abstract
closes = pandas.Series([float(number * number % 17) for number in range(40)], index=range(5, 45))
lines = talib.MACD(closes, 5, 9, 3)
assert [type(line) for line in lines] == [pandas.Series] * 3
assert list(lines[0].index) == list(closes.index)

frame = pandas.DataFrame({"high": closes + 1, "low": closes - 1, "close": closes})
assert type(talib.abstract.RSI(frame, timeperiod=5)) is pandas.Series
assert list(talib.abstract.BBANDS(frame, timeperiod=5)) == ["upperband", "middleband", "lowerband"]
assert talib.abstract.RSI(frame, timeperiod=5).equals(talib.RSI(closes, 5))
"""


def test_pandas_is_not_imported_and_still_answered() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: it comes with the extra `freqtrade`")
    command = [sys.executable, "-W", "error", "-c", USES_PANDAS_LATER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_functions_answer_bit_for_bit_what_the_wrapped_ones_do() -> None:
    bars = random_walk(300)
    for name in ("SMA", "EMA", "WMA", "STDDEV", "ROC", "RSI", "MAX", "MIN", "MACD", "BBANDS"):
        assert same(getattr(functions, name)(bars.close), getattr(talib, name)(bars.close)), name
    for name in ("CCI", "ATR", "ADX", "PLUS_DI", "MINUS_DI"):
        prices = (bars.high, bars.low, bars.close)
        assert same(getattr(functions, name)(*prices), getattr(talib, name)(*prices)), name


def same(one: object, other: object) -> bool:
    return np.array(one).tobytes() == np.array(other).tobytes()


def test_every_function_is_there() -> None:
    assert set(vars(functions)) == set(talib.get_functions())
