"""More than the queues take, with real workers and maintenance: urgent first, nothing lost, nothing recorded twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pytest_celery import CeleryTestSetup

from app.domain.candles import Candle
from app.domain.strategies import Priority
from app.settings import DispatchSettings, MaintenanceSettings, Settings
from app.storage.producers import load_producers
from tests.acceptance.scene import Row, Scene, assert_exactly_once
from tests.building import REPOSITORY, definition, environment, walk
from tests.conftest import Deploy
from tests.integration.producing import ClockFeed, single
from tests.waiting import wait_until

CANDLES = 60


@pytest.fixture(scope="module")
def settings(deploy: Deploy) -> Iterator[Settings]:
    """A deployment whose low queue and whose producers hold little, one job a message."""
    dispatch = DispatchSettings(chunking=False, batch_candles=8, queue_limit_low=2, held_chunks=10, ahead_chunks=5)
    maintenance = MaintenanceSettings(every_s=0.2, overdue_s=2.0)
    with deploy() as settings:
        yield settings.model_copy(update={"dispatch": dispatch, "maintenance": maintenance})


@pytest.fixture
def maintenance(settings: Settings, tmp_path: Path) -> Iterator[None]:
    """A running maintenance process."""
    with (tmp_path / "maintenance.log").open("wb") as log:
        command = [sys.executable, "-m", "app.cli.main", "maintenance"]
        process = subprocess.Popen(command, env=environment(settings), stdout=log, stderr=log, cwd=REPOSITORY)
    yield
    process.terminate()
    process.wait(30)


def subscribe(scene: Scene, symbol: str) -> list[Candle]:
    """Let a quick urgent strategy and a slow patient one want a series."""
    name, slow = symbol.lower(), {"seconds": 0.03}
    scene.register(
        definition(f"{name}.urgent", "tests.quant.revealing:Digest", symbols=[symbol], priority=Priority.HIGH),
        definition(f"{name}.slow", "tests.quant.revealing:Slow", params=slow, symbols=[symbol], priority=Priority.LOW),
    )
    return walk(symbol, CANDLES)


def last(rows: list[Row], name: str) -> object:
    return max(row["finished_at"] for row in rows if row["name"].endswith(name))


def test_a_replay_waits_for_a_slow_queue(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    report = scene.run(single(subscribe(scene, "PRESS-WAIT")), chunking=False)
    assert (report.jobs, report.let_go, report.expired) == (2 * CANDLES, 0, 0)
    scene.wait_until_landed("PRESS-WAIT")
    assert_exactly_once(scene, "PRESS-WAIT")
    assert {row["sends"] for row in scene.dispatches("PRESS-WAIT")} == {1}


@pytest.mark.usefixtures("maintenance")
def test_a_burst_that_cannot_wait_lands_through_maintenance(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    feed = ClockFeed(subscribe(scene, "PRESS-BURST"))
    node = celery_setup.worker.process
    with scene.producing(feed, chunking=False):
        node.kill(signal.SIGSTOP)  # however slowly the burst comes, it is more than the workers take
        try:
            wait_until(lambda: len(scene.dispatches("PRESS-BURST")) == CANDLES, "every candle is taken at once")
        finally:
            node.kill(signal.SIGCONT)
        scene.wait_until_landed("PRESS-BURST")  # the producer lives on and waits for its next candle
        with scene.engine.connect() as connection:
            (producer,) = load_producers(connection, timedelta(minutes=1))
        assert producer["let_go"] > 0 and producer["waiting_since"] is None
        wait_until(lambda: scene.messages() == 0, "workers have acknowledged everything")
        feed.end.set()
    assert_exactly_once(scene, "PRESS-BURST")
    rows = scene.outcomes("PRESS-BURST")
    assert {row["status"] for row in rows} == {"succeeded"}
    assert last(rows, ".urgent") < last(rows, ".slow")  # type: ignore[operator]  # both are times
