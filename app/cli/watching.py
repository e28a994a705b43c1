"""A run's progress as people see it: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from app.cli.output import err, say
from app.domain.runs import RunState, UnitState
from app.storage.runs import Progress as RunProgress
from app.storage.runs import Run

#: Seconds between two lines where there is no terminal.
LINE_EVERY_S = 5.0

#: Shows how far a run is.
Show = Callable[[RunProgress], None]


class Pace:
    """Rate and time left of a run, from what happened since it was first looked at.

    Args:
        clock: returns seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, RunProgress] | None = None

    def tell(self, progress: RunProgress) -> str:
        """Say in a line how it goes: state, rate, time left, failures, slots in use."""
        if self._first is None:
            self._first = self._clock(), progress
        began_at, first = self._first
        elapsed_s, ended = self._clock() - began_at, progress.ended - first.ended
        parts = [progress.state.value]
        if ended and elapsed_s > 0:
            parts.append(f"{(progress.candles - first.candles) / elapsed_s:,.0f} candles/s")
            parts.append(f"{(progress.total - progress.ended) * elapsed_s / ended:,.0f} s left")
        return ", ".join([*parts, f"{progress.units[UnitState.FAILED]:,} failed", f"{progress.slots} slots"])


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
        self._said_at = 0.0

    def __call__(self, progress: RunProgress) -> None:
        """Say how far it is, if it is time to."""
        told, is_over = self._pace.tell(progress), progress.state is not RunState.RUNNING
        if is_over or time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_at = time.monotonic()
            say(f"run {self._run.id}: {progress.ended:,} of {progress.total:,} units, {told}")
