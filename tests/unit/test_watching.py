"""What people are told of a run while they watch it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.cli import watching
from app.cli.watching import Pace
from app.domain.runs import RunState
from app.storage.runs import Progress


def progress(
    succeeded: int, failed: int = 0, slots: int = 2, candles: int = 0, state: RunState = RunState.RUNNING, left: int = 0
) -> Progress:
    units = {"pending": 100 - succeeded - failed, "succeeded": succeeded, "failed": failed, "cancelled": 0}
    return Progress(state, units, candles, 0.0, 0.0, 0, slots, is_trimmed=False, candles_pending=left)


def test_rate_and_time_left_are_those_since_somebody_watches() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.tell(progress(50, candles=500_000, left=500_000)) == "running, 0 failed, 2 slots"
    now[0] = 10.0
    told = pace.tell(progress(69, failed=1, candles=690_000, left=300_000))
    assert told == "running, 19,000 candles/s, 15 s left, 1 failed, 2 slots"


def test_time_left_goes_by_candles_because_units_differ_in_length() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.tell(progress(0, left=1000))
    now[0] = 10.0
    # half of the units and a tenth of the candles
    assert "90 s left" in pace.tell(progress(50, candles=100, left=900, slots=1))


def test_a_pause_has_no_rate_and_does_not_count_afterwards() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.tell(progress(0, left=1000))
    now[0] = 10.0
    assert pace.tell(progress(50, left=500, state=RunState.PAUSED, slots=0)) == "paused, 0 failed, 0 slots"
    now[0] = 1000.0
    assert pace.tell(progress(50, left=500)) == "running, 0 failed, 2 slots"
    now[0] = 1010.0
    assert "40 s left" in pace.tell(progress(60, candles=100, left=400))


def test_without_a_terminal_a_line_is_said_when_the_state_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(watching, "say", said.append)
    show = watching._Lines(cast("Any", SimpleNamespace(id=7)))
    for state in (RunState.RUNNING, *[RunState.PAUSED] * 100, RunState.RUNNING, RunState.CANCELLED):
        show(progress(1, state=state))
    assert [line.split(", ")[1] for line in said] == ["running", "paused", "running", "cancelled"]
    assert said[0] == "run 7: 1 of 100 units, running, 0 failed, 2 slots"
