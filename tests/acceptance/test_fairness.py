"""Who gets a slot when there is more to do than slots: by the order in which jobs start, never by the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.domain.strategies import Limits, Priority
from app.settings import Settings
from tests.acceptance.scene import Scene, assert_exactly_once
from tests.building import ListFeed, definition, walk
from tests.cluster import WorkerProcess
from tests.conftest import Deploy
from tests.quant.pacing import leave, read
from tests.waiting import wait_until

SLOTS = 2
#: Messages that a slot may hold while they are quick: many, so that holding them would show.
PREFETCH = 8


@pytest.fixture
def settings(deploy: Deploy) -> Iterator[Settings]:
    """A deployment of each test, whose queues take all that a test sends at once."""
    with deploy() as settings:
        dispatch = settings.dispatch.model_copy(update={"queue_limit": 5000})
        worker = settings.worker.model_copy(update={"prefetch": PREFETCH})
        yield settings.model_copy(update={"dispatch": dispatch, "worker": worker})


@contextmanager
def node(settings: Settings, folder: Path) -> Iterator[WorkerProcess]:
    """Run a node, started only when the test has filled its queues."""
    process = WorkerProcess("fair", settings, folder / "fair.log", slots=SLOTS)
    try:
        process.ready()
        yield process
    finally:
        process.teardown()


def register_paced(scene: Scene, file: Path, priority: Priority, pause_ms: float) -> None:
    """A strategy of a symbol and a priority of its own."""
    params = {"file": str(file), "who": priority.value, "pause_ms": pause_ms}
    paced = definition(
        f"fa.{priority.value}",
        "tests.quant.pacing:Paced",
        symbols=[symbol(priority)],
        params=params,
        priority=priority,
        limits=Limits(retries=0),
    )
    scene.register(paced)


def symbol(priority: Priority) -> str:
    return f"FA-{priority.name}"


def count(file: Path, who: str) -> int:
    return sum(line.who == who for line in read(file))


def wait_for(file: Path, who: str, starts: int) -> None:
    wait_until(lambda: count(file, who) >= starts, f"{starts} jobs of {who} have started")


def send(scene: Scene, priority: Priority, jobs: int, first: int = 0) -> None:
    """Send jobs of a priority, each in a message of its own."""
    scene.run(ListFeed(walk(symbol(priority), first + jobs)[first:]), chunking=False)


@pytest.mark.parametrize("pause_ms", [1.0, 80.0], ids=["quick", "slow"])
def test_queues_take_turns_by_their_weights(scene: Scene, settings: Settings, tmp_path: Path, pause_ms: float) -> None:
    file, each = tmp_path / "lines", 96
    for priority in reversed(Priority):  # the least urgent has waited longest
        register_paced(scene, file, priority, pause_ms)
        send(scene, priority, each)
    with node(settings, tmp_path):
        scene.wait_until_landed(*map(symbol, Priority), timeout_s=120)
    started = [line.who for line in read(file)]
    assert_exactly_once(scene, *map(symbol, Priority))
    assert Counter(started) == dict.fromkeys(("high", "normal", "low"), each)
    # while all three wait, ten turns of twelve: high 8, normal 3, low 1; what slots hold may be off by one each
    share = Counter(started[:120])
    for who, expected in (("high", 80), ("normal", 30), ("low", 10)):
        assert abs(share[who] - expected) <= SLOTS + 1
    # low is not left for the end: it progresses in every part of the flood
    assert all("low" in started[at : at + 24] for at in range(0, 120, 24))
    # when high is through, normal still passes low
    rest = Counter(started[144 : 144 + 40])
    assert rest["normal"] > 2 * rest["low"] > 0


def test_an_urgent_job_overtakes_slow_ones_that_came_before(scene: Scene, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    register_paced(scene, file, Priority.LOW, 200.0)
    register_paced(scene, file, Priority.HIGH, 0.0)
    send(scene, Priority.LOW, 60)
    with node(settings, tmp_path):
        for number in range(3):
            wait_for(file, "low", SLOTS + count(file, "low"))
            send(scene, Priority.HIGH, 1, first=number)
            leave(file, "sent")
            wait_for(file, "high", number + 1)
        scene.wait_until_landed(*map(symbol, (Priority.LOW, Priority.HIGH)), timeout_s=120)
    order = "".join(line.who[0] for line in read(file))
    for waited in order.split("s")[1:]:
        # a slot may have fetched one more before the urgent one was sent
        assert waited.index("h") <= SLOTS
    assert_exactly_once(scene, *map(symbol, (Priority.LOW, Priority.HIGH)))


def test_quick_messages_are_held_and_overtaken_all_the_same(scene: Scene, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    register_paced(scene, file, Priority.LOW, 12.0)
    register_paced(scene, file, Priority.HIGH, 12.0)
    send(scene, Priority.LOW, 400)
    with node(settings, tmp_path):
        wait_for(file, "low", 60)
        send(scene, Priority.HIGH, 60)
        leave(file, "sent")
        scene.wait_until_landed(*map(symbol, (Priority.LOW, Priority.HIGH)), timeout_s=120)
    started = [line.who for line in read(file)]
    # by then the node held this many low ones, which would have gone first
    held = SLOTS * (PREFETCH - 1)
    assert started[started.index("sent") :].index("high") <= held / 2
    # from its first start on high has most of the turns, though low had the node to itself before
    first = started.index("high")
    assert Counter(started[first : first + 45])["high"] >= 30
    assert started[-1] == "low"
