"""What people are told of a run while they watch it."""

from __future__ import annotations

from app.cli.watching import Pace
from app.domain.runs import RunState
from app.storage.runs import Progress


def progress(succeeded: int, failed: int = 0, slots: int = 2, candles: int = 0) -> Progress:
    units = {"pending": 100 - succeeded - failed, "succeeded": succeeded, "failed": failed, "cancelled": 0}
    return Progress(RunState.RUNNING, units, candles, 0.0, 0.0, 0, slots, is_trimmed=False)


def test_rate_and_time_left_are_those_since_somebody_watches() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.tell(progress(50, candles=500_000)) == "running, 0 failed, 2 slots"
    now[0] = 10.0
    told = pace.tell(progress(69, failed=1, candles=690_000))
    assert told == "running, 19,000 candles/s, 15 s left, 1 failed, 2 slots"
