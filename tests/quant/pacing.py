"""A strategy that takes its time and leaves a line when it starts: who ran when, whatever the machine's speed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from app.strategies.sdk import Context, Signal, Strategy


class Line(NamedTuple):
    """What a job left at its start, or a test between."""

    who: str
    slot: int
    """Process id."""
    candle: int
    """Its open time, milliseconds since 1970."""


class Paced(Strategy):
    """Leaves a line, then sleeps."""

    class Params(Strategy.Params):
        """Where, as whom, and how long."""

        file: str
        who: str
        pause_ms: float

    params: Params

    def on_candle(self, context: Context) -> Signal:
        leave(Path(self.params.file), self.params.who, int(context.bars.open_time[-1]))
        time.sleep(self.params.pause_ms / 1000)
        return Signal(action=1)


def leave(file: Path, who: str, candle: int = 0) -> None:
    """Add a line; several processes may do so at once."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{who} {os.getpid()} {candle}\n".encode())
    os.close(descriptor)


def read(file: Path) -> list[Line]:
    """Return the lines in the order in which they were left."""
    if not file.exists():
        return []
    rows = (row.split() for row in file.read_text().splitlines())
    return [Line(who, int(slot), int(candle)) for who, slot, candle in rows]
