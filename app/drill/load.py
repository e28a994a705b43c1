"""The load of a drill: which candles, which strategies, and what has to come of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.domain.candles import Timeframe
from app.domain.jobs import OutcomeStatus
from app.feeds.generated import GeneratedFeed

SYMBOLS = ("ALPHA-USD", "BETA-USD", "GAMMA-USD")
TIMEFRAME = Timeframe.M1
START = datetime(2024, 1, 1, tzinfo=UTC)

#: Module of the strategies that only a drill loads.
MODULE = "app.drill.strategies"

_COLUMNS = ("timestamp", "symbol", "timeframe", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class Load:
    """Candles of a drill."""

    per_symbol: int = 90
    seed: int = 7
    pause_ms: int = 15
    """What the slowest innocent strategy takes for a candle: it makes the work last."""

    @property
    def candles(self) -> int:
        """How many there are."""
        return self.per_symbol * len(SYMBOLS)

    def write(self, path: Path) -> Path:
        """Write the candles to a file that a producer can replay; return it."""
        feed = GeneratedFeed(SYMBOLS, TIMEFRAME, self.per_symbol, self.seed, START)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for candles in feed.batches():
                for bar in candles:
                    opened = bar.open_time.isoformat()
                    writer.writerow(
                        (opened, bar.symbol, bar.timeframe, bar.open, bar.high, bar.low, bar.close, bar.volume)
                    )
        return path


@dataclass(frozen=True, slots=True)
class Entry:
    """A strategy of a drill, as a definition file names it."""

    name: str
    cls: str
    params: Mapping[str, Any] = field(default_factory=dict)
    symbols: Sequence[str] = ("*",)
    timeout_ms: int = 5000
    retries: int = 2
    priority: str = "low"


@dataclass(frozen=True, slots=True)
class Guilty:
    """A strategy that misbehaves, and how its jobs may end."""

    entry: Entry
    worst: OutcomeStatus
    """How those end that were executed."""
    is_quarantined: bool = False
    """Whether it is taken out of service for good."""

    @property
    def allowed(self) -> frozenset[OutcomeStatus]:
        """Return every end that one of its jobs may have: before, at and after its fault."""
        return frozenset({OutcomeStatus.SUCCEEDED, self.worst, OutcomeStatus.SKIPPED})


def steady(load: Load) -> Entry:
    """Return the innocent strategy that makes the work last."""
    return Entry("steady", "Steady", {"pause_ms": load.pause_ms}, timeout_ms=2000)


def write_definitions(path: Path, entries: Sequence[Entry]) -> Path:
    """Write a definition file; return it."""
    path.write_text("\n".join(line for entry in entries for line in _lines(entry)), encoding="utf-8")
    return path


def _lines(entry: Entry) -> list[str]:
    # JSON's strings, numbers and lists are TOML's as well
    params = ", ".join(f"{name} = {json.dumps(value)}" for name, value in entry.params.items())
    return [
        f"[strategies.{entry.name}]",
        f'implementation = "{MODULE}:{entry.cls}"',
        'category = "drill"',
        f'priority = "{entry.priority}"',
        f"symbols = {json.dumps(list(entry.symbols))}",
        'timeframes = ["*"]',
        f"params = {{ {params} }}",
        f"limits = {{ timeout_ms = {entry.timeout_ms}, retries = {entry.retries} }}",
    ]
