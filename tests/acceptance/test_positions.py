"""Positions on a real fleet: messages that come twice, slots that are killed and a node that is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from pytest_celery import CeleryTestSetup
from sqlalchemy import text

from app.domain.orders import PositionKey
from app.domain.strategies import RegisteredStrategy, Trading
from app.settings import Settings
from tests.acceptance.scene import Scene, assert_exactly_once
from tests.building import REPOSITORY, by_close, definition, environment, walk
from tests.cluster import WorkerNode
from tests.following import Followed, recorded, work_out
from tests.waiting import wait_until

BUSY = Trading(stop_percent=1.0, trailing_percent=1.5, adjust_percent=0.1, size_by_strength=True)
SYMBOLS = ("POS-ONE", "POS-TWO")
CANDLES = 300
#: Outcomes after which the next thing is killed.
APART = 300


@pytest.fixture(scope="module")
def node_names() -> tuple[str, ...]:
    return ("node1", "node2")


@contextmanager
def maintaining(settings: Settings, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli.main", "maintenance"],
            cwd=REPOSITORY,
            env=environment(settings),
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def kill_a_slot(node: WorkerNode) -> None:
    os.kill(min(node.process.slots()), signal.SIGKILL)


def landed(scene: Scene) -> int:
    return sum(dispatch["landed"] for dispatch in scene.dispatches(*SYMBOLS))


def count(scene: Scene, state: str) -> int:
    with scene.engine.connect() as connection:
        query = text("SELECT count(*) FROM actions WHERE state = :state")
        return int(connection.execute(query, {"state": state}).scalar_one())


def play_and_kill(celery_setup: CeleryTestSetup, scene: Scene, expected: int) -> None:
    """Play two series; a slot of each node dies meanwhile, then one node with all it has."""
    first, second = celery_setup.worker_cluster
    deaths = (partial(kill_a_slot, first), partial(kill_a_slot, second), second.kill)
    series = [walk(symbol, CANDLES, seed) for seed, symbol in enumerate(SYMBOLS)]
    scene.publisher.times = 2
    with scene.producing(by_close(*series)) as producer:
        for number, kill in enumerate(deaths, start=1):
            before = number * APART
            wait_until(lambda: landed(scene) >= before, f"enough has landed before death {number}", 60)  # noqa: B023
            kill()
        wait_until(lambda: not producer.is_alive(), "the producer has sent everything", 60)
        wait_until(lambda: landed(scene) == expected, "every expected outcome lands", 90)


def assert_follows(scene: Scene, strategy: RegisteredStrategy) -> int:
    """The strategy's positions are what its outcomes make of them; return how many order intents it has."""
    intents = 0
    for symbol in SYMBOLS:
        key, trading = PositionKey(strategy.id, symbol, "1h"), strategy.definition.trading
        expected = Followed([], []) if trading is None else work_out(scene.engine, key, trading)
        wait_until(lambda: recorded(scene.engine, key) == expected, f"{key} is brought forward")  # noqa: B023
        assert trading is None or len(expected.events) > 10
        intents += len(expected.intents)
    return intents


def test_every_candle_counts_once_whatever_dies(
    celery_setup: CeleryTestSetup, scene: Scene, settings: Settings, tmp_path: Path
) -> None:
    strategies = scene.register(
        definition("pos.ema", params={"fast": 3, "slow": 8}, symbols=SYMBOLS, trading=BUSY),
        definition("pos.supertrend", "supertrend", symbols=SYMBOLS, trading=BUSY),
        definition("pos.restless", "tests.quant.trading:Restless", symbols=SYMBOLS, trading=BUSY),
        definition("pos.idle", "macd", symbols=SYMBOLS),
    )
    with maintaining(settings, tmp_path / "maintenance.log"):
        play_and_kill(celery_setup, scene, CANDLES * len(SYMBOLS) * len(strategies))
        intents = sum(assert_follows(scene, each) for each in strategies)
        assert_exactly_once(scene, *SYMBOLS)
        wait_until(lambda: count(scene, "pending") == 0, "every order intent is on the stream")
    with redis.from_url(settings.broker_dsn, decode_responses=True) as client:
        sent = {fields["idempotency_key"] for _, fields in client.xrange(settings.action_stream)}
    assert len(sent) == count(scene, "sent") == intents - count(scene, "refused") > 0
