"""Replays files of 100,000 and 1,000,000 rows, each in its own process: rows per second and peak memory.

Run ``python benchmarks/replay_memory.py [--json]`` at the root of the repository. The rows are generated and
written to a temporary folder; no server is needed.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SMALL, LARGE = 100_000, 1_000_000
NAMES = ("timestamp", "open", "high", "low", "close", "volume")

#: Prints rows, seconds and the peak of resident memory. VmHWM, because ru_maxrss starts at the parent's size.
REPLAY = """
import re, sys, time
from pathlib import Path
from app.feeds.replay import ReplayFeed
started = time.perf_counter()
rows = sum(map(len, ReplayFeed([sys.argv[1]]).batches()))
seconds = time.perf_counter() - started
print(rows, seconds, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def build_columns(rows: int) -> dict[str, list[float]]:
    random = np.random.Generator(np.random.PCG64(1))
    closes = np.round(30_000 * np.exp(np.cumsum(random.normal(0, 0.0005, rows))), 2)
    opens = np.concatenate([[30_000.0], closes[:-1]])
    high, low = np.maximum(opens, closes) + 1.25, np.minimum(opens, closes) - 1.25
    times = 1_500_000_000_000 // 60_000 * 60_000 + 60_000 * np.arange(rows)
    columns = [times, opens, np.round(high, 2), np.round(low, 2), closes, np.round(random.random(rows) * 100, 5)]
    return dict(zip(NAMES, (column.tolist() for column in columns), strict=True))


def write_csv(path: Path, rows: int, *, newest_first: bool) -> None:
    lines = [",".join(map(repr, row)) for row in zip(*build_columns(rows).values(), strict=True)]
    with gzip.open(path, "wt", compresslevel=3) as text:
        text.write("\n".join([",".join(NAMES), *(reversed(lines) if newest_first else lines)]) + "\n")


def write_file(folder: Path, kind: str, rows: int) -> Path:
    folder.mkdir(parents=True)
    if kind == "parquet":
        path = folder / "BTC-USDT-1m.parquet"
        pq.write_table(pa.table(build_columns(rows)), path)
        return path
    path = folder / "BTC-USDT-1m.csv.gz"
    write_csv(path, rows, newest_first=kind == "csv.gz newest first")
    return path


def replay(path: Path) -> tuple[int, float, float]:
    """Replay in a fresh process; return rows, seconds and peak resident MB."""
    done = subprocess.run([sys.executable, "-c", REPLAY, str(path)], check=True, capture_output=True, text=True)
    rows, seconds, peak_kb = done.stdout.split()
    return int(rows), float(seconds), int(peak_kb) / 1024


def run() -> Iterator[dict[str, str | float]]:
    with tempfile.TemporaryDirectory(prefix="candlefleet-bench-") as name:
        for kind in ("csv.gz", "csv.gz newest first", "parquet"):
            sizes = [replay(write_file(Path(name, kind, str(rows)), kind, rows)) for rows in (SMALL, LARGE)]
            (_, _, small_mb), (rows, seconds, large_mb) = sizes
            yield {
                "kind": kind,
                "rows_per_s": round(rows / seconds),
                "small_mb": round(small_mb, 1),
                "large_mb": round(large_mb, 1),
                "ratio": round(large_mb / small_mb, 3),
            }


def main() -> None:
    results = list(run())
    if "--json" in sys.argv:
        print(json.dumps(results))
        return
    for result in results:
        print(
            f"{result['kind']:20} {result['rows_per_s']:>9,} rows/s   peak {result['small_mb']} MB at {SMALL:,} rows, "
            f"{result['large_mb']} MB at {LARGE:,}: ratio {result['ratio']}"
        )


if __name__ == "__main__":
    main()
