"""Real servers for the tests that ask for them, and for each of those a database and a key prefix of its own.

One pair of servers lives as long as a test process: with pytest-xdist every one has its own, so that no
process waits for another. The schema is migrated once, into a template that is cloned for each test.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import redis
import structlog
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine

from app import embedded
from app.broker import Publisher
from app.embedded.files import is_locked
from app.operations import Operations
from app.settings import PREFIX, BrokerSettings, DispatchSettings, Settings, StrategySettings, WorkerSettings
from app.storage.engine import build_engine
from app.storage.migrate import upgrade
from tests.building import build_publisher
from tests.waiting import wait_until

#: Makes settings with a new database and a new key prefix; both are gone when it is left.
Deploy = Callable[[], AbstractContextManager[Settings]]


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_caller() -> Iterator[None]:
    """What a developer's shell sets must not change what the tests see."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """As our processes log: structlog's own default prints every variable, which takes seconds for one error."""
    *others, _ = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, renderer])


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """The environment of this process without any setting of ours: that of a new user."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


@contextmanager
def serving() -> Iterator[embedded.Servers]:
    """Run a pair of servers and leave nothing of them behind."""
    # not pytest's own folder: it keeps the last three, and a Postgres cluster is 40 MB
    root = Path(tempfile.mkdtemp(prefix="candlefleet-tests-"))
    try:
        with embedded.start(root, durable=False) as servers:
            yield servers
        locks = [root / kind / "keeper.lock" for kind in ("postgres", "redis")]
        wait_until(lambda: not any(is_locked(lock) for lock in locks), "the test servers stopped")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def servers() -> Iterator[embedded.Servers]:
    """Real Postgres and Redis of this test process. A test that stops them takes a pair of its own."""
    with serving() as servers:
        yield servers


@contextmanager
def administering(servers: embedded.Servers) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Connect to the database that holds no tables, for making and dropping others."""
    with psycopg.connect(servers.database_url.replace("+psycopg", "", 1), autocommit=True) as connection:
        yield connection


def database_url(servers: embedded.Servers, name: str) -> str:
    """Return the URL of a database of the test servers."""
    return f"{servers.database_url.rpartition('/')[0]}/{name}"


@contextmanager
def new_database(servers: embedded.Servers, *, template: str = "template1") -> Iterator[str]:
    """Make a database and drop it again; yields its URL."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with administering(servers) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield database_url(servers, name)
    finally:
        wait_until(lambda: _is_dropped(servers, name), "Postgres's own cleaning has left the database")


def _is_dropped(servers: embedded.Servers, name: str) -> bool:
    # our role may end our own connections, but not an autovacuum that is at work: that ends by itself
    with administering(servers) as connection, suppress(psycopg.errors.InsufficientPrivilege):
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        return True
    return False


@contextmanager
def new_key_prefix(servers: embedded.Servers) -> Iterator[str]:
    """Yield a prefix that no other test has, and remove what was kept under it."""
    prefix = f"test-{uuid.uuid4().hex[:12]}:"
    yield prefix
    with redis.from_url(servers.broker_url) as client:
        if keys := list(client.scan_iter(f"{prefix}*", count=1000)):
            client.delete(*keys)


def settings_on(database: str, broker: str, key_prefix: str) -> Settings:
    """Build settings for tests: the defaults, but nothing that waits for people."""
    return Settings(
        database_url=SecretStr(database),
        broker_url=SecretStr(broker),
        # longer than the slowest warm-up of the built-ins, shorter than the series that tests send
        worker=WorkerSettings(window=160, retry_base_s=0.05, retry_cap_s=0.2, heartbeat_s=0.5, shutdown_s=20.0),
        broker=BrokerSettings(key_prefix=key_prefix),
        dispatch=DispatchSettings(trusted_after=0, ahead_chunks=1),
        strategies=StrategySettings(modules=("tests.quant",)),
    )


@contextmanager
def deployed_on(servers: embedded.Servers, template: str) -> Iterator[Settings]:
    """Make a deployment of its own on running servers."""
    with new_database(servers, template=template) as database, new_key_prefix(servers) as prefix:
        yield settings_on(database, servers.broker_url, prefix)


@pytest.fixture(scope="session")
def template(servers: embedded.Servers) -> Iterator[str]:
    """Name of a migrated database that nobody is connected to."""
    with new_database(servers) as url:
        engine = build_engine(url, name="tests")
        upgrade(engine)
        engine.dispose()
        yield url.rpartition("/")[2]


@pytest.fixture(scope="session")
def deploy(servers: embedded.Servers, template: str) -> Deploy:
    """Makes deployments, for fixtures of other scopes and tests that need several."""
    return lambda: deployed_on(servers, template)


@pytest.fixture
def settings(deploy: Deploy) -> Iterator[Settings]:
    """A migrated, empty deployment of this test alone."""
    with deploy() as settings:
        yield settings


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Engine on the database of this test."""
    engine = build_engine(settings.database_dsn, name="tests", pool_size=10)
    yield engine
    engine.dispose()


@pytest.fixture
def operations(settings: Settings) -> Iterator[Operations]:
    """What an operator can do with the deployment of this test."""
    operations = Operations(settings)
    yield operations
    operations.close()


@pytest.fixture
def publisher(settings: Settings) -> Iterator[Publisher]:
    """Publisher to the queues of this test."""
    publisher = build_publisher(settings)
    yield publisher
    publisher.close()
