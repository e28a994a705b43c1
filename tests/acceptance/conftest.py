"""A real fleet for each module of acceptance tests: pytest-celery's fixtures, with processes instead of containers.

Starting a worker takes seconds, so the tests of a module share the fleet and its database. They keep apart
by their symbols: each registers strategies for its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from celery import Celery
from pytest_celery import CeleryBrokerCluster, CeleryWorkerCluster

from app import embedded
from app.broker import create_celery
from app.settings import Settings
from tests.acceptance.scene import Scene
from tests.cluster import BrokerNode, WorkerNode, WorkerProcess
from tests.conftest import Deploy, serving

#: Characters of a node's log that are shown with a failure.
SHOWN = 8_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the worker nodes have said lately with every test that failed."""
    report = yield
    setup = getattr(item, "funcargs", {}).get("celery_setup")
    if report.failed and setup is not None:
        report.sections += [(node.hostname(), node.logs()[-SHOWN:]) for node in setup.worker_cluster]
    return report


@pytest.fixture(scope="module")
def own_servers() -> Iterator[embedded.Servers]:
    """Servers of this module alone, for those who stop them."""
    with serving() as servers:
        yield servers


@pytest.fixture(scope="module")
def settings(deploy: Deploy) -> Iterator[Settings]:
    """A migrated, empty deployment of this module."""
    with deploy() as settings:
        yield settings


@pytest.fixture(scope="module")
def celery_broker_cluster(settings: Settings) -> CeleryBrokerCluster:
    """The Redis of the test session."""
    return CeleryBrokerCluster(BrokerNode(settings))


@pytest.fixture
def celery_backend_cluster() -> None:
    """There is no result backend: outcomes are rows."""


@pytest.fixture(scope="module")
def node_names() -> tuple[str, ...]:
    """The worker nodes of the cluster; a module that wants others says so."""
    return ("node1",)


@pytest.fixture(scope="module")
def celery_worker_cluster(
    settings: Settings, node_names: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CeleryWorkerCluster]:
    """Worker nodes with two slots each, ready; they die with the module."""
    logs: Path = tmp_path_factory.mktemp("workers")
    nodes = [WorkerNode(WorkerProcess(name, settings, logs / f"{name}.log")) for name in node_names]
    cluster = CeleryWorkerCluster(*nodes)
    try:
        cluster.ready()
        yield cluster
    finally:
        for node in nodes:
            node.teardown()


@pytest.fixture
def celery_setup_app(settings: Settings) -> Celery:
    """The application as a producer has it, for control commands."""
    return create_celery(settings)


@pytest.fixture
def scene(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Producers for the module's fleet, and a view of what came of it."""
    with Scene(settings) as scene:
        yield scene
