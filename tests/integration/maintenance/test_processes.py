"""Of several maintenance processes one is active, and it does its work."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from threading import Event

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from app.broker import Publisher
from app.domain.costs import Room
from app.errors import StorageUnavailableError
from app.maintenance.base import Report
from app.maintenance.build import create_impatient_celery
from app.maintenance.leadership import Leadership
from app.maintenance.runner import Runner
from app.settings import Settings
from tests.integration.maintenance.scene import Maintaining, Scene, Worker
from tests.waiting import wait_until


def test_a_session_that_ends_takes_the_lead_and_every_write_with_it(settings: Settings, engine: Engine) -> None:
    first, second = Leadership(settings.database_dsn), Leadership(settings.database_dsn)
    assert first.claim()
    assert not second.claim()
    with engine.begin() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        )
    wait_until(second.claim, "the second takes over")
    with pytest.raises(StorageUnavailableError):
        first.read_clock()
    with pytest.raises(StorageUnavailableError), first.begin() as connection:
        connection.execute(text("DELETE FROM nodes"))
    first.resign()
    assert not first.claim()
    first.resign()
    second.resign()


def test_a_leader_that_hangs_loses_the_lead(settings: Settings) -> None:
    first, second = Leadership(settings.database_dsn), Leadership(settings.database_dsn)
    assert first.claim()
    started = time.monotonic()
    wait_until(second.claim, "the second takes over", 8.0)
    assert time.monotonic() - started < 5.0
    with pytest.raises(StorageUnavailableError):
        first.read_clock()
    first.resign()
    second.resign()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_another_process_takes_over_within_five_seconds(
    number: signal.Signals, scene: Scene, maintain: Callable[[], Maintaining]
) -> None:
    scene.add("one")
    first = maintain()
    wait_until(lambda: first.says("maintenance active"), "the first is active")
    second = maintain()
    wait_until(lambda: second.says("maintenance standing by"), "the second stands by")
    first.process.send_signal(number)
    started = time.monotonic()
    wait_until(lambda: second.says("maintenance active"), "the second takes over")
    assert time.monotonic() - started < 5.0
    if number is signal.SIGTERM:
        assert first.process.wait(10) == 0
    scene.write(0, publish=False)
    wait_until(lambda: scene.publisher.depths()["normal"], "the second does the work", 15.0)


def test_it_waits_for_redis_with_one_line_and_goes_on(settings: Settings) -> None:
    is_away, rounds = Event(), Event()
    is_away.set()

    class Asking:
        name, every_s = "asking", 0.05

        def run_once(self, now: datetime) -> Report:
            if is_away.is_set():
                nowhere = settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")})
                Publisher(create_impatient_celery(nowhere), Room(1)).depths()
            rounds.set()
            return Report()

    stop = Event()
    with ThreadPoolExecutor(1) as pool, capture_logs() as logs:
        running = pool.submit(Runner(Leadership(settings.database_dsn), lambda _: [Asking()]).run, stop)
        try:
            wait_until(lambda: any("Redis" in each["event"] for each in logs), "it says that Redis is away")
            is_away.clear()
            assert rounds.wait(10)
            wait_until(lambda: any("again" in each["event"] for each in logs), "it says that it goes on")
        finally:
            stop.set()
        running.result(timeout=10)
    assert sum("waits for Redis" in each["event"] for each in logs) == 1


def test_it_waits_for_postgres_with_one_line_and_a_service_that_fails_does_not_stop_the_others(
    settings: Settings,
) -> None:
    turns = {"broken": 0, "well": 0}

    class Counting:
        every_s = 0.02

        def __init__(self, name: str) -> None:
            self.name = name

        def run_once(self, now: datetime) -> Report:
            turns[self.name] += 1
            if self.name == "broken":
                raise ValueError("made up")
            return Report()

    stop = Event()
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    away = Leadership(nowhere)
    with ThreadPoolExecutor(2) as pool, capture_logs() as logs:
        waiting = pool.submit(Runner(away, lambda _: []).run, stop)
        running = pool.submit(
            Runner(Leadership(settings.database_dsn), lambda _: [Counting("broken"), Counting("well")]).run, stop
        )
        try:
            wait_until(lambda: turns["well"] > 10 and turns["broken"] > 2, "both had their turns")
        finally:
            stop.set()
        running.result(timeout=10)
        waiting.result(timeout=10)
    assert sum(each["event"] == "maintenance waiting" for each in logs) == 1
    assert sum(each["event"] == "maintenance service failed" for each in logs) == 1


def test_the_jobs_of_a_killed_worker_land_within_fifteen_seconds(
    scene: Scene, tmp_path: Path, maintain: Callable[[], Maintaining], start_worker: Callable[[str], Worker]
) -> None:
    asleep = tmp_path / "asleep"
    scene.add_sleepers("one", "two", "three", while_exists=asleep)
    maintain()
    victim = start_worker("victim")
    wait_until(lambda: scene.rows("SELECT node FROM nodes") == [(victim.node,)], "the node reports")
    scene.write(0, 1, 2)
    wait_until(scene.held, "the node runs a message, and will fetch no more while it is slow")
    asleep.unlink()
    victim.kill()
    started = time.monotonic()
    start_worker("other")
    wait_until(lambda: scene.rows("SELECT count(*) FROM outcomes") == [(9,)], "all of it lands")
    assert time.monotonic() - started < 15.0
    assert scene.rows("SELECT DISTINCT status FROM outcomes") == [("succeeded",)]
    assert scene.rows("SELECT max(sends), min(sends) FROM dispatches")[0][0] == 2
