"""Slots of a running node come and go under load: nothing is lost, nothing runs twice, nobody is blamed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_celery import CeleryTestSetup

from app.domain.strategies import Limits
from app.errors import ConfigurationError, NodeUnavailableError
from app.operations import Operations
from app.operations_workers import Scaled, list_workers, scale
from tests.acceptance.scene import Scene, assert_exactly_once
from tests.building import REPOSITORY, ListFeed, definition, environment, walk
from tests.cluster import WorkerProcess
from tests.conftest import Deploy
from tests.quant.pacing import read
from tests.waiting import wait_until

#: More than a test gets through while it looks: the producer is stopped when the test has seen enough.
PLENTY = 20_000

#: Starts per slot from which it is told who shares the work.
LOOKED_AT = 5


def register_paced(scene: Scene, symbol: str, file: Path, pause_ms: float, **limits: int) -> None:
    params = {"file": str(file), "who": symbol.lower(), "pause_ms": pause_ms}
    name, own = f"{symbol.lower()}.paced", Limits(**limits)
    scene.register(definition(name, "tests.quant.pacing:Paced", symbols=[symbol], params=params, limits=own))


def feed(symbol: str) -> ListFeed:
    return ListFeed(*([candle] for candle in walk(symbol, PLENTY)))


def wait_for_slots(file: Path, slots: int) -> None:
    """Wait until so many slots, and no more, share what starts from now on."""
    seen = len(read(file))

    def settled() -> bool:
        lately = [line.slot for line in read(file)[seen:]][-LOOKED_AT * slots :]
        return len(lately) == LOOKED_AT * slots and len(set(lately)) == slots

    wait_until(settled, f"{slots} slots share the work", 60.0)


def wait_for_processes(process: WorkerProcess, count: int) -> None:
    wait_until(lambda: len(process.slots()) == count, f"the pool has {count} processes")


def prefetch_count(operations: Operations, node: str) -> Any:
    answer = operations.queues.ask(node, "stats", {}, within_s=10.0)
    assert answer is not None
    return answer["prefetch_count"]


def test_slots_come_and_go_while_jobs_run(
    celery_setup: CeleryTestSetup, scene: Scene, operations: Operations, tmp_path: Path
) -> None:
    node, file, held = celery_setup.worker.hostname(), tmp_path / "lines", operations.settings.worker.prefetch
    process = celery_setup.worker.process
    register_paced(scene, "SC-ONE", file, 20.0)
    with scene.producing(feed("SC-ONE"), chunking=False):
        wait_for_slots(file, 2)
        before = 2
        for change, after in (("+2", 4), ("-3", 1), ("=3", 3), ("=2", 2), ("+1", 3), ("-1", 2)):
            assert scale(operations, node, change) == Scaled(node, before, after)
            wait_for_slots(file, after)
            wait_for_processes(process, after)
            assert prefetch_count(operations, node) == after * held
            before = after
    scene.wait_until_landed("SC-ONE")
    assert_exactly_once(scene, "SC-ONE")
    assert {(row["status"], row["attempt"]) for row in scene.outcomes("SC-ONE")} == {("succeeded", 0)}
    assert scene.attempts("SC-ONE") == []
    assert set(Counter(line.candle for line in read(file)).values()) == {1}
    assert "slot died" not in process.logs()


def test_a_slot_that_took_the_place_of_another_is_known_when_it_dies(
    celery_setup: CeleryTestSetup, scene: Scene, operations: Operations, tmp_path: Path
) -> None:
    node, file = celery_setup.worker.hostname(), tmp_path / "lines"
    scale(operations, node, "=3")
    register_paced(scene, "SC-TWO", file, 300.0, retries=1)
    with scene.producing(feed("SC-TWO"), chunking=False):
        wait_for_slots(file, 3)
        scale(operations, node, "=1")
        wait_for_slots(file, 1)
        scale(operations, node, "=2")
        wait_for_slots(file, 2)
        newest = max(celery_setup.worker.process.slots())
        started = len(read(file))
        wait_until(lambda: any(line.slot == newest for line in read(file)[started:]), "it runs something")
        os.kill(newest, signal.SIGKILL)
        wait_until(lambda: scene.attempts("SC-TWO"), "its end is recorded")
    scene.wait_until_landed("SC-TWO")
    assert_exactly_once(scene, "SC-TWO")
    # it was known what it ran; the breaker that a dead slot opens lets the rest be skipped
    assert [(row["status"], row["name"]) for row in scene.attempts("SC-TWO")] == [("crashed", "sc-two.paced")]
    assert {row["status"] for row in scene.outcomes("SC-TWO")} <= {"succeeded", "skipped"}
    wait_for_processes(celery_setup.worker.process, 2)
    assert newest not in celery_setup.worker.process.slots()


@pytest.mark.parametrize(
    ("node", "change", "expected"),
    [
        ("nodee1@{host}", "+1", "did you mean 'node1@{host}'?"),
        ("node1@{host}", "-9", "expected 1 to 512 slots"),
        ("node1@{host}", "=0", "expected 1 to 512 slots"),
        ("node1@{host}", "=513", "expected 1 to 512 slots"),
        ("node1@{host}", "2", r"expected slots as \+2, -1 or =4, found '2'"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_told(
    celery_setup: CeleryTestSetup, operations: Operations, node: str, change: str, expected: str
) -> None:
    host = celery_setup.worker.hostname().partition("@")[2]
    before = [(row["name"], row["slots"]) for row in list_workers(operations)]
    with pytest.raises(ConfigurationError, match=expected.format(host=host)):
        scale(operations, node.format(host=host), change)
    assert [(row["name"], row["slots"]) for row in list_workers(operations)] == before


def test_a_node_keeps_a_slot_and_its_prefetch_whoever_asks(
    celery_setup: CeleryTestSetup, operations: Operations
) -> None:
    node = celery_setup.worker.hostname()
    before = prefetch_count(operations, node)
    for command, count in (("pool_shrink", 600), ("pool_grow", 600)):
        answer = operations.queues.ask(node, command, {"n": count}, within_s=10.0)
        assert answer is not None and "expected" in answer["error"]
    assert prefetch_count(operations, node) == before


def test_a_node_that_does_not_answer_is_said_to(
    celery_setup: CeleryTestSetup, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations_workers.ANSWERS_WITHIN_S", 0.2)
    process = celery_setup.worker.process
    process.kill(signal.SIGSTOP)
    try:
        with pytest.raises(NodeUnavailableError, match=r"did not answer within 0.2 s; it was last seen"):
            scale(operations, celery_setup.worker.hostname(), "+1")
    finally:
        process.kill(signal.SIGCONT)


def test_slots_that_came_and_went_end_with_their_node(deploy: Deploy, tmp_path: Path) -> None:
    with deploy() as settings:
        operations = Operations(settings)
        process = WorkerProcess("ends", settings, tmp_path / "ends.log", slots=1)
        try:
            process.ready()
            name = wait_until(lambda: [row["name"] for row in list_workers(operations)], "it reports")[0]
            scale(operations, name, "=4")
            wait_for_processes(process, 4)
            slots = process.slots()
            scale(operations, name, "=3")
            process.kill("SIGTERM")
            assert process.wait() == 0
            wait_until(lambda: not any(psutil.pid_exists(pid) for pid in slots), "its slots are gone")
            assert list_workers(operations) == []
        finally:
            process.teardown()
            operations.close()


def test_two_nodes_started_alike_on_one_machine_are_two(deploy: Deploy, tmp_path: Path) -> None:
    with deploy() as settings:
        operations = Operations(settings)
        command = [sys.executable, "-m", "app.cli.main", "worker", "--concurrency", "1"]
        with (tmp_path / "log").open("wb") as log:
            options: dict[str, Any] = {"stdout": log, "stderr": log, "cwd": REPOSITORY, "env": environment(settings)}
            nodes = [subprocess.Popen(command, **options) for _ in range(2)]
            try:
                wait_until(lambda: len(list_workers(operations)) == 2, "both report", 60.0)
                names = {row["name"].partition("@")[0] for row in list_workers(operations)}
                assert names == {"worker", "worker-2"}
                third = subprocess.run([*command, "--name", "worker@%h"], **options, timeout=60, check=False)
                assert third.returncode == 2
                assert "choose another name" in (tmp_path / "log").read_text()
            finally:
                for node in nodes:
                    node.terminate()
                    node.wait(60)
                operations.close()
