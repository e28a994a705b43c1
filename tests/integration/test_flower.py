"""Flower as an operator meets it: a process that asks for a password, and ends when it is told to."""

from __future__ import annotations

import json
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
from typing import Any

import psutil
import pytest

from app.errors import ConfigurationError
from app.flower import keep_password
from app.settings import Settings
from tests.acceptance.scene import Row, Scene
from tests.building import REPOSITORY, definition, walk
from tests.cluster import WorkerNode, WorkerProcess
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
        return self.ask(path, password)[0]

    def ask(self, path: str, password: str | None = None, method: str = "GET") -> tuple[int, Any]:
        """Return the status and the JSON of an answer; 0 when it does not listen yet, None when it is no JSON."""
        credentials = b64encode(f"operator:{password}".encode()).decode()
        headers = {} if password is None else {"Authorization": f"Basic {credentials}"}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read()
            is_json = "json" in (response.getheader("Content-Type") or "")
            return response.status, json.loads(body) if is_json else None
        except ConnectionRefusedError:
            return 0, None
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


@pytest.fixture
def node(settings: Settings, tmp_path: Path) -> Iterator[WorkerNode]:
    node = WorkerNode(WorkerProcess("shown", settings, tmp_path / "worker.log"))
    try:
        node.process.ready()
        yield node
    finally:
        node.teardown()


def await_workers(page: Page, node: WorkerNode) -> None:
    """Wait until the page hears the node: what is told before is lost to it."""
    wait_until(lambda: counters(page, node), "Flower hears the node's heartbeat")


def counters(page: Page, node: WorkerNode) -> dict[str, Any]:
    """Return Flower's counters of a node, by the columns of its list of workers."""
    _, answer = page.ask("/workers?json=1", PASSWORD)
    return next((each for each in answer["data"] if each["hostname"] == node.hostname()), {})


def tasks(page: Page) -> dict[str, Any]:
    """Return what Flower's API says of all tasks, by id."""
    status, answer = page.ask("/api/tasks", PASSWORD)
    assert status == 200
    return dict(answer)


def id_of(row: Row) -> str:
    return f"{row['dispatch_id']}.{row['strategy_id']}"


def test_every_job_is_a_task_of_its_strategy_and_node(settings: Settings, page: Page, node: WorkerNode) -> None:
    await_workers(page, node)
    with Scene(settings) as scene:
        scene.register(definition("ema"), definition("bad", "tests.quant.misbehaving:Garbage"))
        scene.play(walk("BTC-USD", 5))
        rows = scene.outcomes("BTC-USD")
    ended = ["FAILURE"] * 5 + ["SUCCESS"] * 5
    wait_until(lambda: sorted(task["state"] for task in tasks(page).values()) == ended, "all are shown as ended")
    shown = tasks(page)
    for row in rows:
        task = shown[id_of(row)]
        is_good = row["status"] == "succeeded"
        assert (task["name"], task["state"]) == (row["name"], "SUCCESS" if is_good else "FAILURE")
        assert task["args"] == f"BTC-USD 1h {row['open_time']:%Y-%m-%dT%H:%MZ}"
        assert task["kwargs"].startswith("chunk of 2" if is_good else "alone")  # retries travel alone
        assert task["runtime"] == pytest.approx(row["processing_ms"] / 1000, rel=1e-4)
        assert task["worker"] == node.hostname()
        assert task["exception"] is None or task["exception"].startswith("InvalidSignalError: ")
    retried = sum(row["attempt"] for row in rows)
    seen = counters(page, node)
    assert (seen["task-received"], seen["task-failed"], seen["task-succeeded"]) == (10 + retried, 5, 5)
    assert seen["status"] is True


def test_what_flower_revokes_is_cancelled(settings: Settings, page: Page, node: WorkerNode) -> None:
    await_workers(page, node)
    with Scene(settings) as scene:
        scene.register(definition("kept"), definition("taken-back"))
        wait_until(lambda: page.ask("/api/task/revoke/1.2", PASSWORD, "POST")[0] == 200, "Flower tells the node")
        node.wait_for_log("Tasks flagged as revoked")
        scene.play(walk("BTC-USD", 2))
        statuses = {id_of(row): row["status"] for row in scene.outcomes("BTC-USD")}
    assert statuses == {"1.1": "succeeded", "1.2": "cancelled", "2.1": "succeeded", "2.2": "succeeded"}
    wait_until(lambda: tasks(page).get("1.2", {}).get("state") == "REVOKED", "Flower shows it as revoked")
