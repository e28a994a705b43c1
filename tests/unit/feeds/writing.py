"""Writing small candle files for the feed tests."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path

from app.domain.candles import Candle
from app.feeds.replay import ReplayFeed

HEADER = "timestamp,open,high,low,close,volume"
#: 2021-01-01T00:00Z, milliseconds.
START_MS = 1_609_459_200_000
HOUR_MS = 3_600_000


def line(hour: int, close: float = 2.0, *, step_ms: int = HOUR_MS) -> str:
    return f"{START_MS + hour * step_ms},1.5,{max(3.0, close)},1.0,{close},10"


def write(path: Path, lines: Iterable[str], header: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([header, *lines]) + "\n"
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def replay(*paths: Path) -> tuple[ReplayFeed, list[list[Candle]]]:
    feed = ReplayFeed(paths)
    return feed, list(feed.batches())


def flatten(batches: Sequence[Sequence[Candle]]) -> list[Candle]:
    return [candle for batch in batches for candle in batch]
