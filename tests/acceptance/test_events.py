"""Every job is a Celery task to whoever listens, alone or in a chunk: a real node, and Celery's own receiver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_celery import CeleryTestSetup

from app.domain.jobs import job_id
from app.domain.strategies import Limits
from tests.acceptance.scene import Row, Scene
from tests.building import ListFeed, definition, walk
from tests.listening import Listener, listening
from tests.waiting import wait_until

RAISES = "tests.quant.misbehaving:Raises"
FLAKY = "tests.quant.misbehaving:Flaky"


@pytest.fixture
def listener(celery_setup: CeleryTestSetup, scene: Scene) -> Iterator[Listener]:
    with listening(scene.settings) as listener:
        yield listener


def id_of(row: Row) -> str:
    return job_id(row["dispatch_id"], row["strategy_id"])


def await_ends(listener: Listener, rows: list[Row]) -> None:
    """Wait until each of some outcomes was told."""
    ends = {"succeeded", "failed", "revoked", "rejected"}
    for row in rows:
        wait_until(lambda row=row: ends & {*listener.kinds(id_of(row))}, f"the end of {id_of(row)} is told")  # type: ignore[misc]


@pytest.mark.parametrize("chunking", [True, False])
def test_each_job_is_a_task_of_its_own(
    celery_setup: CeleryTestSetup, scene: Scene, listener: Listener, chunking: bool
) -> None:
    symbol = f"EV-{chunking}".upper()
    for implementation in ("ema_cross", "macd"):
        scene.register(definition(f"{symbol}.{implementation}".lower(), implementation, symbols=[symbol]))
    before = time.time()
    scene.play(walk(symbol, 6), chunking=chunking)
    rows = scene.outcomes(symbol)
    assert len(rows) == 12
    await_ends(listener, rows)
    for row in rows:
        assert listener.kinds(id_of(row)) == ["received", "started", "succeeded"]
        task = listener.state.tasks[id_of(row)]
        assert (task.name, task.state, task.retries) == (row["name"], "SUCCESS", 0)
        assert task.args == f"{symbol} 1h {row['open_time']:%Y-%m-%dT%H:%MZ}"
        assert task.runtime == pytest.approx(row["processing_ms"] / 1000, rel=1e-4)
        assert task.result == f"{ {-1: 'short', 0: 'flat', 1: 'long'}[row['action']] } {row['strength']:g}"
        assert before - 60 < task.received <= task.started <= task.succeeded < time.time() + 60
        assert task.worker.hostname == celery_setup.worker.hostname()
        assert ("alone" if not chunking else "chunk of 2") in task.kwargs
    (node,) = listener.state.workers.values()
    assert node.alive and {event["pid"] for event in listener.events()} == {node.pid}


def test_what_fails_is_failed_and_what_is_tried_again_is_retried(
    scene: Scene, listener: Listener, tmp_path: Path
) -> None:
    limits = Limits(retries=1, timeout_ms=150)
    params = {"folder": str(tmp_path), "failures": 1}
    scene.register(
        definition("bad.good", symbols=["EV-BAD"]),
        definition("bad.raises", RAISES, symbols=["EV-BAD"], limits=limits),
        definition(
            "bad.sleeps", "tests.quant.misbehaving:Sleeps", symbols=["EV-BAD"], limits=Limits(retries=0, timeout_ms=150)
        ),
        definition("bad.flaky", FLAKY, symbols=["EV-BAD"], params=params, limits=limits),
    )
    scene.play(walk("EV-BAD", 1))
    rows = {row["name"]: row for row in scene.outcomes("EV-BAD")}
    await_ends(listener, list(rows.values()))
    told = {name: listener.kinds(id_of(row)) for name, row in rows.items()}
    again = ["received", "started", "retried", "received", "started"]
    assert told == {
        "bad.good": ["received", "started", "succeeded"],
        "bad.raises": [*again, "failed"],
        "bad.sleeps": ["received", "started", "failed"],
        "bad.flaky": [*again, "succeeded"],
    }
    task = listener.state.tasks[id_of(rows["bad.raises"])]
    assert (task.state, task.retries) == ("FAILURE", 1)
    assert task.exception.startswith("ValueError: no idea what to do")
    late = listener.state.tasks[id_of(rows["bad.sleeps"])]
    assert late.state == "FAILURE" and late.exception.startswith("TimeoutError: ") and late.runtime >= 0.15
    assert listener.state.tasks[id_of(rows["bad.flaky"])].state == "SUCCESS"


def test_a_job_that_came_alone_says_so_and_a_retry_keeps_its_id(
    scene: Scene, listener: Listener, tmp_path: Path
) -> None:
    params = {"folder": str(tmp_path), "failures": 2}
    scene.register(definition("one.flaky", FLAKY, symbols=["EV-ONE"], params=params, limits=Limits(retries=2)))
    scene.play(walk("EV-ONE", 1))
    (row,) = scene.outcomes("EV-ONE")
    await_ends(listener, [row])
    received = [event for event in listener.events(id_of(row)) if event["type"] == "task-received"]
    assert [(event["kwargs"], event["retries"], event["eta"] is None) for event in received] == [
        ("alone", 0, True),
        ("alone", 1, False),
        ("alone", 2, False),
    ]


def test_a_message_that_comes_twice_tells_of_the_same_tasks(scene: Scene, listener: Listener) -> None:
    scene.register(
        definition("twice.ema", symbols=["EV-TWICE"]), definition("twice.macd", "macd", symbols=["EV-TWICE"])
    )
    scene.publisher.times = 2
    scene.play(walk("EV-TWICE", 3))
    rows = scene.outcomes("EV-TWICE")
    told = ["received", "started", "succeeded"] * 2
    for row in rows:
        wait_until(lambda row=row: listener.kinds(id_of(row)) == told, "both deliveries are told")  # type: ignore[misc]
    assert {event["uuid"] for event in listener.events()} == {id_of(row) for row in rows}


def test_a_job_that_kills_its_slot_is_failed_and_its_neighbour_is_not(scene: Scene, listener: Listener) -> None:
    dies = definition("dies.dies", "tests.quant.misbehaving:Dies", symbols=["EV-DIES"], limits=Limits(retries=0))
    scene.register(dies, definition("dies.good", symbols=["EV-DIES"]))
    scene.play(walk("EV-DIES", 1))
    rows = {row["name"]: row for row in scene.outcomes("EV-DIES")}
    assert rows["dies.dies"]["status"] == "crashed"
    crashed = listener.await_task(id_of(rows["dies.dies"]), "FAILURE")
    assert crashed.name == "dies.dies" and "SIGKILL" in crashed.exception
    assert listener.await_task(id_of(rows["dies.good"]), "SUCCESS").kwargs == "alone"


def test_a_long_job_is_started_while_it_runs(scene: Scene, listener: Listener) -> None:
    limits = Limits(retries=0, timeout_ms=4000)
    scene.register(definition("long.sleeps", "tests.quant.misbehaving:Sleeps", symbols=["EV-LONG"], limits=limits))
    with scene.producing(ListFeed(walk("EV-LONG", 1))):
        uuid = wait_until(lambda: next((t.uuid for t in listener.tasks("long.sleeps")), None), "it is told")
        task = listener.await_task(str(uuid), "STARTED")
        assert scene.outcomes("EV-LONG") == []  # it runs
        scene.wait_until_landed("EV-LONG")
    listener.await_task(task.uuid, "FAILURE")
    assert listener.kinds(task.uuid) == ["received", "started", "failed"]
    assert task.failed - task.started == pytest.approx(4.0, abs=0.5)


def test_nothing_is_told_of_messages(scene: Scene, listener: Listener) -> None:
    scene.register(*(definition(f"msg.{n}", symbols=["EV-MSG"]) for n in range(20)))
    scene.play(walk("EV-MSG", 20))
    rows = scene.outcomes("EV-MSG")
    await_ends(listener, rows)
    scene.wait_until_idle()
    assert {event["uuid"] for event in listener.events()} == {id_of(row) for row in rows}
    assert set(listener.count()) == {"received", "started", "succeeded"}
