"""What integration tests share.

A slot, and what lies on the queues, on the deployment of the test; and a deployment for the tests of a module, emptied
before each of them, with the command line against it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from app.broker import Publisher, create_celery
from app.cli.main import cli
from app.settings import Settings
from tests.building import build_publisher
from tests.conftest import Deploy
from tests.integration.queues import Queues
from tests.integration.stage import Run, Stage, staging
from workers.lifecycle import Slot, open_slot
from workers.shared import Shared


@pytest.fixture
def alarm() -> Iterator[None]:
    """Opening a slot takes SIGALRM over: it is given back."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def slot(settings: Settings, alarm: None) -> Iterator[Slot]:
    """What a pool process owns, in this one."""
    slot = open_slot(create_celery(settings), settings, Shared())
    yield slot
    slot.close()


@pytest.fixture
def queues(settings: Settings) -> Iterator[Queues]:
    """What lies on the queues of this test."""
    queues = Queues(settings)
    yield queues
    queues.close()


@pytest.fixture
def one_by_one(settings: Settings) -> Iterator[Publisher]:
    """A publisher that sends every job in a message of its own."""
    publisher = build_publisher(settings, jobs_in_message=1)
    yield publisher
    publisher.close()


@pytest.fixture(scope="module")
def running(deploy: Deploy) -> Iterator[Stage]:
    with staging(deploy) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Stage:
    running.clear()
    return running


@pytest.fixture
def run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line against the stage; its logging goes nowhere that outlives it."""
    for name, value in stage.environment.items():
        if name.startswith("CANDLEFLEET_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("app.cli.session.configure_logging", lambda _: None)
    return lambda *arguments: CliRunner().invoke(cli, [str(each) for each in arguments])
