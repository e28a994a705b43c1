"""`candlefleet demo` as a new user runs it: a throw-away home, one command, one JSON document, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil

from tests.building import REPOSITORY, walk
from tests.waiting import wait_until

STRATEGIES = 10
KEYS = {"candles", "dispatches", "outcomes", "decisions", "elapsed_s", "outcomes_per_s", "latency_ms", "rejected"}


def write_csv(path: Path, symbol: str, count: int, *, damage: bool = False) -> None:
    """Write a candle file; a damaged one has a repeated row and a negative price besides."""
    rows = [
        f"{round(c.open_time.timestamp() * 1000)},{c.open},{c.high},{c.low},{c.close},{c.volume}"
        for c in walk(symbol, count + 1)
    ]
    if damage:
        time, *_ = rows.pop().split(",")
        rows += [rows[-1], f"{time},1,1,-1,1,1"]
    else:
        rows.pop()
    path.write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]) + "\n")


def demo(home: Path, data: Path, environment: dict[str, str]) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "--home", str(home), "demo", "--data", str(data), "--json"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        timeout=90,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)  # nothing but the document
    return document


def started_by(mark: str, home: Path) -> list[str]:
    """Name what still runs of a demonstration: by its environment, which children inherit, or by its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ().values() or any(str(home) in word for word in process.cmdline()[1:]):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def test_demo_lands_every_expected_outcome_twice_in_a_row(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    data, home, mark = tmp_path / "candles", tmp_path / "a home", uuid.uuid4().hex
    data.mkdir()
    write_csv(data / "ONE-USD-1h.csv", "ONE-USD", 60)
    write_csv(data / "TWO-USD-1h.csv", "TWO-USD", 60, damage=True)
    for _ in range(2):
        document = demo(home, data, {**clean_environment, "STARTED_BY_TEST": mark})
        assert document.keys() >= KEYS
        assert document["candles"] == document["dispatches"] == document["decisions"] == 120
        assert document["outcomes"] == {"succeeded": 120 * STRATEGIES}
        assert sum(document["rejected"].values()) == 2
        assert document["elapsed_s"] > 0
        assert document["outcomes_per_s"] > 0
        assert document["latency_ms"].keys() == {"p50", "p95", "p99"}
        assert 0 < document["latency_ms"]["p50"] <= document["latency_ms"]["p95"] <= document["latency_ms"]["p99"]
        assert sum(document["decisions_by_action"].values()) == 120
        said = [row["long"] + row["flat"] + row["short"] for row in document["signals"]]
        assert said == [120] * STRATEGIES
        wait_until(lambda: not started_by(mark, home), f"no process is left behind: {started_by(mark, home)}")
