"""What strategies share without being handed it: put back after a job, or after a chunk."""

from __future__ import annotations

import decimal
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog

from app.strategies.evaluation import evaluate
from app.strategies.sdk import Strategy
from tests.quant import meddling
from tests.unit.strategies.market import random_walk
from workers.runtime import surroundings as surroundings_module
from workers.runtime.surroundings import Surroundings, kept


@pytest.fixture(autouse=True)
def _back_afterwards() -> Iterator[None]:
    surroundings_module._said.clear()
    depth, alarm, folder = sys.getrecursionlimit(), signal.getsignal(signal.SIGALRM), Path.cwd()
    with warnings.catch_warnings(), np.errstate():
        yield
    sys.setrecursionlimit(depth)
    signal.signal(signal.SIGALRM, alarm)
    os.chdir(folder)


def state() -> tuple[object, ...]:
    """Return what a job can see of its surroundings."""
    filters = list(warnings.filters)
    digits = (decimal.getcontext().prec, decimal.DefaultContext.prec, decimal.DefaultContext.rounding)
    shared = (dict(os.environ), Path.cwd(), signal.getsignal(signal.SIGALRM), gc.isenabled())
    return filters, digits, sys.getrecursionlimit(), sorted(np.geterr().items()), shared


def meddle(cls: type[Strategy]) -> Callable[[], object]:
    return lambda: evaluate(cls(), random_walk(200))


QUICK = (
    meddling.RaisesOnFloats,
    meddling.TurnsWarningsIntoErrors,
    meddling.ForgetsWarnings,
    meddling.RoundsDecimals,
)
SLOW = (meddling.NestsDeeply, meddling.MovesAway, meddling.StealsTheAlarm)


@pytest.mark.parametrize("cls", QUICK)
def test_next_job_of_the_chunk_sees_nothing_of_it(cls: type[Strategy]) -> None:
    surroundings = Surroundings()
    before = surroundings.run(state)
    surroundings.run(meddle(cls))
    assert surroundings.run(state) == before


@pytest.mark.parametrize("cls", [*QUICK, *SLOW])
def test_next_chunk_sees_nothing_of_it(cls: type[Strategy]) -> None:
    before = state()
    with kept() as surroundings:
        surroundings.run(meddle(cls))
    assert state() == before


def test_filters_work_again_where_they_were_looked_up_before() -> None:
    def warn() -> int:
        with warnings.catch_warnings(record=True) as heard:
            warnings.warn("look", RuntimeWarning, stacklevel=1)
        return len(heard)

    warnings.simplefilter("always")
    surroundings = Surroundings()
    assert surroundings.run(warn) == 1
    surroundings.run(lambda: warnings.simplefilter("ignore"))
    assert surroundings.run(warn) == 1


def test_what_was_changed_is_said_and_nothing_else() -> None:
    with structlog.testing.capture_logs() as logged, kept() as surroundings:
        surroundings.run(lambda: None)
    assert logged == []
    with structlog.testing.capture_logs() as logged, kept() as surroundings:
        surroundings.run(meddle(meddling.MovesAway))
    assert logged[0]["changed"][:2] == ["environment", "working folder"]


def test_who_changes_something_with_every_job_does_not_fill_the_log() -> None:
    with structlog.testing.capture_logs() as logged, kept() as surroundings:
        for _ in range(100):
            surroundings.run(meddle(meddling.RoundsDecimals))
    assert len(logged) == 1


def test_error_of_the_job_goes_through() -> None:
    with kept() as surroundings, pytest.raises(ZeroDivisionError):
        surroundings.run(lambda: 1 / 0)


def test_ids_of_the_log_are_there_for_the_job() -> None:
    with structlog.contextvars.bound_contextvars(dispatch=7), kept() as surroundings:
        assert surroundings.run(structlog.contextvars.get_contextvars) == {"dispatch": 7}


def test_job_that_is_interrupted_while_it_is_tidied_up_after_is_tidied_up_after_the_chunk() -> None:
    before = state()
    with kept():
        meddle(meddling.TurnsWarningsIntoErrors)()  # not through `run`: as if that had not come to its end
    assert state() == before


def test_folder_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with kept() as surroundings:
        assert surroundings.run(lambda: 7) == 7
    os.chdir(tmp_path)
    with kept() as surroundings:
        surroundings.run(lambda: os.chdir(tmp_path.parent))
        tmp_path.rmdir()
