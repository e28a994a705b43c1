"""A run's progress as people see it: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from app.cli.output import err, say
from app.domain.runs import RunState, UnitState
from app.storage.runs import Progress as RunProgress
from app.storage.runs import Run
from app.wording import counted

#: Seconds between two lines where there is no terminal.
LINE_EVERY_S = 5.0

#: Shows how far a run is.
Show = Callable[[RunProgress], None]


class Pace:
    """Rate and time left of a run, from what happened since it was first looked at, or since it was resumed.

    Args:
        clock: returns seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, RunProgress] | None = None

    def tell(self, progress: RunProgress) -> str:
        """Say in a line how it goes: state, rate, time left, failures, slots in use."""
        parts = [progress.state.value, *self._measure(progress)]
        if progress.state is not RunState.RUNNING:
            self._first = None
        return ", ".join([*parts, f"{progress.units[UnitState.FAILED]:,} failed", counted(progress.slots, "slot")])

    def _measure(self, progress: RunProgress) -> list[str]:
        # by candles: units differ in length
        left = progress.candles_pending
        if self._first is None or left > self._first[1].candles_pending:  # failed units are tried again
            self._first = self._clock(), progress
        began_at, first = self._first
        elapsed_s, done = self._clock() - began_at, first.candles_pending - left
        if progress.state is RunState.PAUSED or not done or elapsed_s <= 0:
            return []
        rate = (progress.candles - first.candles) / elapsed_s
        return [f"{rate:,.0f} candles/s", f"{left * elapsed_s / done:,.0f} s left"]


@contextmanager
def showing(run: Run) -> Iterator[Show]:
    """Hand out what shows a run's progress, as long as it is watched."""
    if not err.is_terminal:
        yield _Lines(run)
        return
    told = TextColumn("{task.fields[told]}")
    with Progress(TextColumn("run {task.description}"), BarColumn(), TaskProgressColumn(), told, console=err) as bar:
        task, pace = bar.add_task(str(run.id), total=run.units, told=""), Pace()
        yield lambda progress: bar.update(task, completed=progress.ended, told=pace.tell(progress))


class _Lines:
    """A line now and then."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pace = Pace()
        self._said_at = -math.inf
        self._state: RunState | None = None

    def __call__(self, progress: RunProgress) -> None:
        """Say how far it is, if it is time to: when its state is another, and now and then while it runs."""
        told, is_new = self._pace.tell(progress), progress.state is not self._state
        is_due = progress.state is RunState.RUNNING and time.monotonic() - self._said_at >= LINE_EVERY_S
        if is_new or is_due:
            self._said_at, self._state = time.monotonic(), progress.state
            say(f"run {self._run.id}: {progress.ended:,} of {counted(progress.total, 'unit')}, {told}")
