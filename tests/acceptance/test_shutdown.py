"""Nodes that come and go while work is under way: a polite end loses nothing, and others take over."""

from __future__ import annotations

import psutil
import pytest
from pytest_celery import CeleryTestSetup

from tests.acceptance.scene import Row, Scene, assert_exactly_once
from tests.building import ListFeed, definition, walk
from tests.cluster import WorkerNode
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def node_names() -> tuple[str, ...]:
    return ("leaving", "staying")


def slots_of(node: WorkerNode) -> set[str]:
    """Return how the outcomes of a node's slots are marked."""
    return {str(pid) for pid in node.process.slots()}


def by(rows: list[Row], slots: set[str]) -> list[Row]:
    return [row for row in rows if row["worker"].rpartition(":")[2] in slots]


def register_slow(scene: Scene, symbol: str) -> None:
    slow = "tests.quant.revealing:Slow"
    scene.register(*(definition(f"{symbol.lower()}.slow-{n}", slow, symbols=[symbol]) for n in range(3)))


def test_node_told_to_end_finishes_and_another_takes_over(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    leaving, staying = celery_setup.worker_cluster
    gone, left = slots_of(leaving), slots_of(staying)
    register_slow(scene, "TERM-ONE")
    candles = ListFeed(*([candle] for candle in walk("TERM-ONE", 100)))
    with scene.producing(candles, chunking=False) as producer:  # far more messages than the slots can hold
        wait_until(lambda: by(scene.outcomes("TERM-ONE"), gone), "the leaving node is at work")
        leaving.kill("SIGTERM", reload_container=False)
        assert leaving.process.wait() == 0
        at_the_end = scene.outcomes("TERM-ONE")
        producer.join(60)
    scene.wait_until_landed("TERM-ONE")
    assert_exactly_once(scene, "TERM-ONE")
    rows = scene.outcomes("TERM-ONE")
    assert {(row["status"], row["attempt"]) for row in rows} == {("succeeded", 0)}
    assert len(by(rows, gone)) == len(by(at_the_end, gone)) > 0
    assert len(by(rows, left)) == 300 - len(by(rows, gone))
    assert not [pid for pid in gone if psutil.pid_exists(int(pid))]
    assert [node for node in scene.nodes() if node.startswith("leaving@")] == []


def test_work_that_comes_while_no_node_runs_waits_for_one(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    for node in celery_setup.worker_cluster:
        if node.process.status == "running":
            node.kill("SIGTERM", reload_container=False)
            node.process.wait()
    scene.register(definition("wait.ema", symbols=["WAIT-ONE"]), definition("wait.macd", "macd", symbols=["WAIT-ONE"]))
    report = scene.run(ListFeed(walk("WAIT-ONE", 40)))
    assert scene.missing("WAIT-ONE") == report.jobs == 80
    celery_setup.worker_cluster[1].restart()
    scene.wait_until_landed("WAIT-ONE")
    assert_exactly_once(scene, "WAIT-ONE")
