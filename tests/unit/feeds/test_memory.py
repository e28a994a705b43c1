from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.feeds.writing import line, write

#: Replays a path and prints the rows and the peak of resident memory in kB. VmHWM belongs to the process alone.
REPLAY = """
import re, sys
from pathlib import Path
from app.feeds.replay import ReplayFeed
rows = sum(map(len, ReplayFeed([sys.argv[1]]).batches()))
print(rows, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
ROOT = Path(__file__).parents[3]


def _peak_kb(path: Path, rows: int) -> int:
    write(path, (line(hour, 1 + hour % 997 / 997) for hour in range(rows)))
    command = [sys.executable, "-c", REPLAY, str(path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    replayed, peak_kb = map(int, done.stdout.split())
    assert replayed == rows
    return peak_kb


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc, which only Linux has")
def test_five_times_the_rows_take_the_same_memory(tmp_path: Path) -> None:
    small = _peak_kb(tmp_path / "small" / "BTC-USDT-1h.csv.gz", 25_000)
    large = _peak_kb(tmp_path / "large" / "BTC-USDT-1h.csv.gz", 125_000)
    assert large / small < 1.10
