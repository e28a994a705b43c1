"""What stands still is found, counted and got going."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import redis
from prometheus_client import REGISTRY

from app.broker import Publisher, create_celery
from app.domain.costs import Room
from app.maintenance.build import create_impatient_celery
from app.maintenance.fleet import Fleet
from app.maintenance.janitor import Janitor
from app.maintenance.metrics import Findings
from app.maintenance.stalls import Control, StallDetector
from app.settings import Settings
from tests.integration.maintenance.scene import Scene, Worker, later
from tests.waiting import wait_until


class Recorded:
    """A fleet that notes what is done to it."""

    def __init__(self) -> None:
        self.canaries: list[str] = []
        self.killed: list[tuple[str, str]] = []
        self.ended: list[str] = []

    def send_canary(self, node: str, number: str) -> None:
        self.canaries.append(node)

    def kill_chunk(self, node: str, task_id: str) -> None:
        self.killed.append((node, task_id))

    def shut_down(self, node: str) -> None:
        self.ended.append(node)


def new_detector(scene: Scene, fleet: Control) -> StallDetector:
    settings = scene.settings
    canary = timedelta(seconds=settings.maintenance.canary_s)
    return StallDetector(scene.engine.begin, fleet, Findings(), settings.rules, settings.silence, canary, 1.0)


def deadlocks(kind: str) -> float:
    return REGISTRY.get_sample_value("optimizer_deadlock_total", {"kind": kind}) or 0.0


def test_a_chunk_past_its_hard_limit_is_killed_once_and_its_jobs_then_travel_alone(scene: Scene) -> None:
    scene.add("one", "two")
    scene.write(0)
    ((task_id, _),) = scene.take_with_ids()
    fleet, before = Recorded(), deadlocks("chunk")
    detector = new_detector(scene, fleet)
    now = later(7)
    scene.beat(at=now, held=(task_id,), overdue=(task_id,), busy=1)
    assert detector.run_once(now).done == {"chunks": 1, "canaries": 1}
    assert detector.run_once(now).done == {}
    assert fleet.killed == [("a@test", task_id)]
    assert deadlocks("chunk") == before + 1
    scene.settle(now)
    scene.republisher.run_once(now - timedelta(seconds=1))
    scene.beat(at=now)  # its slot is dead, and Celery has acknowledged the message
    scene.republisher.run_once(now)
    assert [len(chunk.jobs) for chunk in scene.take()] == [1, 1]


def test_a_job_past_its_hard_limit_that_travelled_alone_is_recorded_and_its_breaker_opens(scene: Scene) -> None:
    (one,) = scene.add("one")
    (dispatch,) = scene.write(0)
    now = later(1)
    scene.beat(at=now, overdue=(f"{dispatch}.{one.id}",), busy=1)
    new_detector(scene, Recorded()).run_once(now)
    assert scene.rows("SELECT status, error_class, worker FROM outcomes") == [("timed_out", "SlotDiedError", "a@test")]
    assert scene.rows("SELECT state, crashes FROM breakers") == [("open", 1)]
    new_detector(scene, Recorded()).run_once(now)  # another leader finds it again
    assert scene.rows("SELECT state, crashes FROM breakers") == [("open", 1)]


def test_an_idle_node_that_does_not_answer_is_ended_and_forgotten(scene: Scene) -> None:
    fleet, before = Recorded(), deadlocks("node")
    detector = new_detector(scene, fleet)
    now = later(0)
    scene.beat(at=now)
    assert detector.run_once(now).done == {"canaries": 1}
    assert detector.run_once(now).done == {}
    for second in (11, 11, 12):
        scene.beat(at=now + timedelta(seconds=second))
        assert fleet.ended == []
        report = detector.run_once(now + timedelta(seconds=second))
    assert report.done == {"deaf": 1}
    assert fleet.ended == ["a@test"]
    assert scene.rows("SELECT * FROM nodes") == []
    assert deadlocks("node") == before + 1
    assert detector.run_once(now + timedelta(seconds=12)).done == {}


def test_a_busy_node_and_one_that_answers_are_left_alone(scene: Scene) -> None:
    fleet = Recorded()
    detector = new_detector(scene, fleet)
    now = later(0)
    scene.beat("busy@test", at=now)
    scene.beat("well@test", at=now)
    detector.run_once(now)
    scene.change("UPDATE nodes SET canary_seen_at = canary_sent_at WHERE node = 'well@test'")
    for second in (11, 12, 13):
        at = now + timedelta(seconds=second)
        scene.beat("busy@test", at=at, busy=2, held=("1.1", "1.2", "1.3"))
        scene.beat("well@test", at=at)
        detector.run_once(at)
    assert fleet.ended == []
    assert fleet.canaries == ["busy@test", "well@test", "well@test"]


def test_a_dispatch_that_is_sent_again_without_progress_is_counted_as_standing_still(scene: Scene) -> None:
    scene.add("one")
    scene.write(0)
    scene.change("UPDATE dispatches SET sends = 2")
    scene.take()
    before = deadlocks("dispatch")
    now = later(7)
    scene.settle(now)
    scene.republisher.run_once(now)
    assert deadlocks("dispatch") == before + 1


def test_long_silent_nodes_are_removed_with_their_queues(scene: Scene, settings: Settings) -> None:
    fleet = Fleet(create_celery(settings), scene.publisher)
    now = later(0)
    scene.beat("gone@test", at=now - timedelta(seconds=31))
    scene.beat("late@test", at=now - timedelta(seconds=20))
    fleet.send_canary("gone@test", "1")
    janitor = Janitor(scene.engine.begin, fleet.forget, settings.silence, 1.0)
    with redis.from_url(settings.broker_dsn) as client:
        assert client.llen(f"{settings.broker.key_prefix}gone@test.dq2") == 1
        assert janitor.run_once(now).done == {"nodes": 1}
        assert not client.exists(f"{settings.broker.key_prefix}gone@test.dq2")
    assert scene.rows("SELECT node FROM nodes") == [("late@test",)]
    assert janitor.run_once(now).done == {}


def test_a_canary_goes_through_a_real_nodes_own_queue(scene: Scene, start_worker: Callable[[str], Worker]) -> None:
    worker = start_worker("a")
    wait_until(lambda: scene.rows("SELECT node FROM nodes") == [(worker.node,)], "the node reports")
    app = create_impatient_celery(scene.settings)
    publisher = Publisher(app, Room(1))
    detector = new_detector(scene, Fleet(app, publisher))
    assert detector.run_once(later(0)).done == {"canaries": 1}
    wait_until(
        lambda: scene.rows("SELECT canary_seen_at >= canary_sent_at FROM nodes") == [(True,)], "the canary is answered"
    )
    Fleet(app, publisher).shut_down(worker.node)
    assert worker.process.wait(20) == 0
    publisher.close()


def test_a_killed_chunk_of_a_real_node_is_done_for_celery_and_its_jobs_land_alone(
    scene: Scene, tmp_path: Path, start_worker: Callable[[str], Worker]
) -> None:
    asleep = tmp_path / "asleep"
    strategies = scene.add_sleepers("one", "two", while_exists=asleep)
    start_worker("a")
    scene.write(0)
    wait_until(lambda: scene.rows("SELECT busy FROM nodes") == [(1,)], "the chunk runs")
    publisher = Publisher(create_impatient_celery(scene.settings), Room(1))
    # the node itself would say `overdue` only if Celery could not kill the slot: said for it
    scene.change("UPDATE nodes SET overdue = held")
    detector = new_detector(scene, Fleet(create_impatient_celery(scene.settings), publisher))
    assert detector.run_once(later(0)).done["chunks"] == 1
    wait_until(lambda: scene.held() == [], "the message is gone")
    asleep.unlink()
    assert scene.rows("SELECT landed, sends FROM dispatches") == [(0, 2)]
    assert publisher.depths()["normal"] == 0, "nobody split the chunk"
    now = later(7)
    scene.settle(now)
    assert scene.republisher.run_once(now).done == {"messages": 2}
    wait_until(lambda: scene.rows("SELECT count(*) FROM outcomes") == [(len(strategies),)], "they land")
    publisher.close()
