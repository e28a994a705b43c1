"""A scene on a deployment of the test's own, with the settings that maintenance is tested with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.broker import Publisher
from app.settings import BrokerSettings, DispatchSettings, Settings, StrategySettings
from tests.building import build_publisher
from tests.conftest import Deploy
from tests.integration.maintenance.scene import SLEEPERS, Maintaining, Scene, Worker


@pytest.fixture
def settings(deploy: Deploy) -> Iterator[Settings]:
    """The defaults: the bounds that these tests look at are those of a deployment."""
    with deploy() as own:
        yield Settings(
            database_url=own.database_url,
            broker_url=own.broker_url,
            broker=BrokerSettings(key_prefix=own.broker.key_prefix),
            dispatch=DispatchSettings(trusted_after=0),
            strategies=StrategySettings(modules=(SLEEPERS,)),
        )


@pytest.fixture
def publisher(settings: Settings) -> Iterator[Publisher]:
    """Every job travels in a message of its own."""
    publisher = build_publisher(settings, jobs_in_message=1)
    yield publisher
    publisher.close()


@pytest.fixture
def scene(settings: Settings, engine: Engine, publisher: Publisher) -> Scene:
    return Scene(settings, engine, publisher)


@pytest.fixture
def maintain(settings: Settings, tmp_path: Path) -> Iterator[Callable[[], Maintaining]]:
    running: list[Maintaining] = []

    def start() -> Maintaining:
        running.append(Maintaining(settings, tmp_path / f"{len(running)}.log"))
        return running[-1]

    yield start
    for each in running:
        each.end()


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path) -> Iterator[Callable[[str], Worker]]:
    running: list[Worker] = []

    def start(name: str) -> Worker:
        running.append(Worker(settings, name, tmp_path / f"{name}.log"))
        return running[-1]

    yield start
    for each in running:
        each.kill()
