"""One deployment for the tests of a module, emptied before each of them, and the command line against it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from tests.integration.stage import Run, Stage, staging


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    with staging() as stage:
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
