"""Real servers, a database and a key prefix for each test, and the scene on them."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine

from app import embedded
from app.broker import Publisher, create_celery
from app.domain.costs import Room
from app.settings import BrokerSettings, DispatchSettings, Settings, StrategySettings
from app.storage.engine import build_engine
from app.storage.migrate import upgrade
from tests.integration.maintenance.scene import SLEEPERS, Maintaining, Scene, Worker


@pytest.fixture(scope="module")
def servers() -> Iterator[embedded.Servers]:
    root = Path(tempfile.mkdtemp(prefix="candlefleet-maintenance-"))
    try:
        with embedded.start(root, durable=False) as servers:
            yield servers
        servers.await_end()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def administering(servers: embedded.Servers) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(servers.database_url.replace("+psycopg", "", 1), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def template(servers: embedded.Servers) -> str:
    name = "maintenance_template"
    with administering(servers) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    engine = build_engine(_url(servers, name), name="tests")
    upgrade(engine)
    engine.dispose()
    return name


def _url(servers: embedded.Servers, name: str) -> str:
    return f"{servers.database_url.rpartition('/')[0]}/{name}".replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def settings(servers: embedded.Servers, template: str) -> Iterator[Settings]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with administering(servers) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    yield Settings(
        database_url=SecretStr(_url(servers, name).replace("+psycopg", "", 1)),
        broker_url=SecretStr(servers.broker_url),
        broker=BrokerSettings(key_prefix=f"{name}:"),
        dispatch=DispatchSettings(trusted_after=0),
        strategies=StrategySettings(modules=(SLEEPERS,)),
    )
    with administering(servers) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    with redis.from_url(servers.broker_url) as client:
        if keys := list(client.scan_iter(f"{name}:*", count=1000)):
            client.delete(*keys)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = build_engine(settings.database_dsn, name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def publisher(settings: Settings) -> Iterator[Publisher]:
    publisher = Publisher(create_celery(settings), Room(1))
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
