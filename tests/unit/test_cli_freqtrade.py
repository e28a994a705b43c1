"""`candlefleet strategies freqtrade FILE --data PATH`, which needs no server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import talib

from app.domain.candles import Timeframe
from app.strategies.bars import Bars
from tests.unit.strategies.freqtrade.sources import TREND, written
from tests.unit.strategies.freqtrade.test_frame import shifted
from tests.unit.strategies.market import random_walk

#: Hours from the epoch to some candles of our time: file readers take small numbers for seconds.
YEARS = 24 * 20_000


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", "strategies", "freqtrade", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}, check=False)


def stored(folder: Path, bars: Bars) -> Path:
    path = folder / f"{bars.symbol}-{bars.timeframe.value}.csv"
    columns = [bars.open_time, bars.open, bars.high, bars.low, bars.close, bars.volume]
    rows = [",".join(repr(cell.item()) for cell in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join(["open_time,open,high,low,close,volume", *rows]) + "\n")
    return path


def test_json_names_every_cell_that_counts(tmp_path: Path) -> None:
    bars = shifted(random_walk(300), YEARS)
    data = stored(tmp_path, bars)
    done = run(written(tmp_path, TREND), "--data", data, "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (report["strategy"], report["startup"]) == ("Trend", 60)
    assert any("custom_exit" in text for text in report["left_out"])
    (series,) = report["series"]
    assert (series["symbol"], series["timeframe"], series["rows"]) == ("BTC-USDT", Timeframe.H1.value, 300)
    fast, slow = talib.EMA(bars.close, 5), talib.EMA(bars.close, 15)
    up = (fast[1:] > slow[1:]) & (fast[:-1] <= slow[:-1]) & (bars.volume[1:] > 0)
    entered = [row["open_time"] for row in series["signals"] if row["enter_long"]]
    assert entered == [
        f"{np.datetime64(int(bars.open_time[row + 1]), 'ms')}"[:19] + "+00:00" for row in np.flatnonzero(up)
    ]
    assert all(row["enter_tag"] == "up" and row["action"] == 1 for row in series["signals"] if row["enter_long"])


def test_people_see_counts_and_what_is_left_out(tmp_path: Path) -> None:
    done = run(written(tmp_path, TREND), "--data", stored(tmp_path, shifted(random_walk(300), YEARS)))
    assert done.returncode == 0, done.stderr
    assert "Trend: start-up 60 candles; parameters: none" in done.stdout
    assert "BTC-USDT" in done.stdout and "enter long" in done.stdout
    assert "left out: custom_exit() is never called" in done.stderr


def test_mistakes_are_one_line_and_an_exit_code(tmp_path: Path) -> None:
    data, broken = stored(tmp_path, shifted(random_walk(30), YEARS)), written(tmp_path, "import freqtrade.plugins\n")
    done = run(broken, "--data", data)
    assert (done.returncode, done.stdout) == (2, "")
    assert "mine.py, line 1: module freqtrade.plugins is not offered" in done.stderr
    failing = written(tmp_path, TREND.replace('dataframe["fast"] = ', 'dataframe["fast"] = 1 / 0 + '), "failing.py")
    done = run(failing, "--data", data, "--class", "Trend")
    assert done.returncode == 1
    assert "strategy 'Trend' on BTC-USDT 1h candle opened" in done.stderr and "ZeroDivisionError" in done.stderr
    assert run(failing, "--data", tmp_path / "absent").returncode == 1
