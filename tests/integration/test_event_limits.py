"""A flood of jobs and whoever listens to a real node: successes are sampled, failures arrive, few messages, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from app.domain.strategies import Limits
from app.settings import BreakerSettings, EventSettings, Settings
from tests.acceptance.scene import Scene
from tests.building import definition, walk
from tests.cluster import WorkerNode, WorkerProcess
from tests.listening import listening
from tests.waiting import wait_until

COUNTS = text("SELECT sum(events_sent), sum(events_sampled), sum(events_dropped) FROM nodes")


@contextmanager
def flooded(settings: Settings, folder: Path) -> Iterator[Scene]:
    """Have a real node run a flood of good jobs with one that fails in each candle."""
    node = WorkerNode(WorkerProcess("flooded", settings, folder / "worker.log"))
    try:
        node.process.ready()
        with Scene(settings) as scene:
            scene.register(*(definition(f"good-{n}") for n in range(19)))
            scene.register(definition("bad", "tests.quant.misbehaving:Garbage", limits=Limits(retries=0)))
            yield scene
    finally:
        node.teardown()


def test_a_flood_is_sampled_and_failures_all_arrive(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    few = settings.model_copy(update={"events": EventSettings(rate=3), "breaker": BreakerSettings(failures=1000)})
    with flooded(few, tmp_path) as scene, listening(few) as listener:
        scene.play(walk("BTC-USD", 100))
        failed = {
            f"{row['dispatch_id']}.{row['strategy_id']}" for row in scene.outcomes("BTC-USD") if row["error_class"]
        }
        assert len(failed) == 100

        def counted() -> tuple[int, ...]:
            with engine.connect() as connection:
                return tuple(map(int, connection.execute(COUNTS).one()))

        wait_until(lambda: sum(counted()) == 3 * 2000, "every event is counted")
        sent, sampled, dropped = counted()
        wait_until(lambda: len(listener.events()) == sent, "all that was sent is heard")
    told = {event["uuid"] for event in listener.events() if event["type"] == "task-failed"}
    assert told == failed and dropped == 0
    assert listener.count()["succeeded"] == 1900 - sampled / 3 < 1900
    assert len(listener.messages) < sent / 3  # Celery itself would send one for each event


def test_without_metrics_nothing_is_told(settings: Settings, tmp_path: Path) -> None:
    silent = settings.model_copy(update={"metrics": False})
    with flooded(silent, tmp_path) as scene, listening(silent) as listener:
        listener.app.control.enable_events()  # as Flower does every five seconds
        scene.play(walk("BTC-USD", 5))
        beats = listener.beats
        wait_until(lambda: listener.beats > beats, "a heartbeat comes after all jobs")
    assert listener.events() == []
