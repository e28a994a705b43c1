"""Flower as an operator meets it: a process that asks for a password, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from app.errors import ConfigurationError
from app.flower import keep_password
from app.settings import Settings
from tests.building import REPOSITORY
from tests.waiting import wait_until

PASSWORD = "made-up-for-this-test"


@dataclass(frozen=True, slots=True)
class Page:
    """A running Flower."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def status(self, path: str, password: str | None = None) -> int:
        """Return what it answers to a GET; 0 when it does not listen yet."""
        credentials = b64encode(f"operator:{password}".encode()).decode()
        headers = {} if password is None else {"Authorization": f"Basic {credentials}"}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        except ConnectionRefusedError:
            return 0
        finally:
            connection.close()

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def command(home: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "app.cli.main", "--home", str(home), "flower", "--port", str(port)]


def environment(settings: Settings, password: str) -> dict[str, str]:
    return {
        **os.environ,
        "CANDLEFLEET_DATABASE_URL": settings.database_dsn,
        "CANDLEFLEET_BROKER_URL": settings.broker_dsn,
        "CANDLEFLEET_BROKER__KEY_PREFIX": settings.broker.key_prefix,
        "CANDLEFLEET_FLOWER__PASSWORD": password,
    }


@contextmanager
def running(settings: Settings, home: Path, password: str = PASSWORD) -> Iterator[Page]:
    """Run `candlefleet flower` and wait until it answers; an empty password lets it make one."""
    home.mkdir(exist_ok=True)
    port, log = free_port(), home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(home, port), env=environment(settings, password), cwd=REPOSITORY, stdout=output, stderr=output
        )
    page = Page(process, port, log)
    try:
        wait_until(lambda: process.poll() is not None or page.status("/healthcheck"), "Flower answers")
        assert process.poll() is None, log.read_text()
        yield page
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def page(settings: Settings, tmp_path: Path) -> Iterator[Page]:
    with running(settings, tmp_path / "home") as page:
        yield page


def test_only_who_knows_the_password_sees_anything(page: Page) -> None:
    for path in ("/", "/tasks", "/broker", "/metrics", "/api/workers"):
        assert page.status(path) == 401, path
        assert page.status(path, "guessed") == 401, path
        assert page.status(path, PASSWORD) == 200, path


def test_a_health_check_needs_no_password(page: Page) -> None:
    assert page.status("/healthcheck") == 200


def test_the_password_is_not_in_the_arguments(page: Page) -> None:
    process = psutil.Process(page.process.pid)
    words = [word for each in (process, *process.children(recursive=True)) for word in each.cmdline()]
    assert not any(PASSWORD in word for word in words)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_is_no_error(page: Page, number: signal.Signals) -> None:
    children = psutil.Process(page.process.pid).children(recursive=True)
    assert page.end(number) == 0
    assert "Traceback" not in page.log.read_text()
    assert not any(child.is_running() for child in children)


def test_a_password_is_made_and_said_once(settings: Settings, tmp_path: Path) -> None:
    kept = tmp_path / "flower-password"
    with running(settings, tmp_path, password="") as first:
        password = kept.read_text().strip()
        assert first.status("/", password) == 200
        assert first.log.read_text().count(password) == 1
    with running(settings, tmp_path, password="") as second:
        assert second.status("/", password) == 200
        assert password not in second.log.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_kept_password_is_never_empty(tmp_path: Path) -> None:
    (tmp_path / "flower-password").touch()
    with pytest.raises(ConfigurationError, match="delete the file for a new one"):
        keep_password(tmp_path, print)


def test_a_port_that_is_taken_is_said_in_one_line(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            command(tmp_path, port), env=environment(settings, PASSWORD), cwd=REPOSITORY, capture_output=True, text=True
        )
    assert done.returncode == 2
    assert f"Flower cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
