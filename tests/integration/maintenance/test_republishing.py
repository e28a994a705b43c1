"""What is lost is sent again, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from app.broker import Publisher
from app.domain.jobs import OutcomeStatus
from app.domain.strategies import StrategyStatus
from app.settings import Settings
from app.storage.landing import Attempt
from app.storage.strategies import set_status
from tests.integration.maintenance.scene import Scene, later


def test_what_was_never_published_is_sent_once(scene: Scene) -> None:
    first, second = scene.add("one", "two")
    (dispatch,) = scene.write(0, publish=False)
    now = later(7)
    scene.settle(now)
    assert scene.republisher.run_once(now).done == {"messages": 1}
    (chunk,) = scene.take()
    assert [key.strategy_id for key in chunk.jobs] == [first.id, second.id]
    assert (chunk.dispatch_id, chunk.attempt, chunk.previous_open_time) == (dispatch, 0, None)
    assert scene.rows("SELECT sends FROM dispatches") == [(1,)]
    assert scene.republisher.run_once(now + timedelta(seconds=1)).done == {}
    assert scene.take() == []


def test_what_is_not_overdue_is_left_alone(scene: Scene) -> None:
    scene.add("one")
    scene.write(0, publish=False)
    scene.write(1)
    scene.take()
    now = later(4)
    scene.settle(now)
    assert scene.republisher.run_once(now).done == {}


def test_only_what_is_missing_is_sent_again(scene: Scene) -> None:
    one, two, three = scene.add("one", "two", "three")
    (dispatch,) = scene.write(0)
    scene.take()
    scene.land(dispatch, one.id)
    now = later(7)
    scene.settle(now)
    scene.republisher.run_once(now)
    (chunk,) = scene.take()
    assert [key.strategy_id for key in chunk.jobs] == [two.id, three.id]


def test_what_waits_in_its_queue_is_not_lost(scene: Scene) -> None:
    scene.add("one")
    scene.write(0)
    now = later(7)
    scene.settle(now)
    assert scene.republisher.run_once(now).done == {}
    assert len(scene.take()) == 1


def test_what_was_taken_from_the_front_of_its_queue_by_nobody_alive_is_lost(scene: Scene) -> None:
    scene.add("one")
    (lost,) = scene.write(0)
    scene.take()
    (waiting,) = scene.write(1)
    now = later(7)
    scene.settle(now)
    assert scene.republisher.run_once(now).done == {"messages": 1}
    assert [chunk.dispatch_id for chunk in scene.take()] == [waiting, lost]


def test_what_was_sent_again_waits_behind_newer_ones_and_is_not_sent_a_third_time(scene: Scene) -> None:
    scene.add("one")
    scene.write(0)
    scene.take()
    scene.write(1)
    now = later(7)
    scene.settle(now)
    assert scene.republisher.run_once(now).done == {"messages": 1}
    much_later = later(60)
    scene.settle(much_later)
    assert scene.republisher.run_once(much_later).done == {}


def test_what_a_living_node_holds_is_not_lost_and_what_a_silent_one_held_is(scene: Scene) -> None:
    scene.add("one", "two")
    (dispatch,) = scene.write(0)
    ((task_id, _),) = scene.take_with_ids()
    now = later(7)
    scene.settle(now)
    scene.beat(at=now, held=(task_id,))
    scene.republisher.run_once(now - timedelta(seconds=1))
    assert scene.republisher.run_once(now).done == {}
    silent = now + timedelta(seconds=3.1)
    assert scene.republisher.run_once(silent).done == {"messages": 1}
    assert [chunk.dispatch_id for chunk in scene.take()] == [dispatch]


def test_a_message_taken_after_the_nodes_last_sign_of_life_is_not_lost(scene: Scene) -> None:
    scene.add("one")
    scene.write(0)
    now = later(7)
    scene.settle(now)
    scene.beat(at=now - timedelta(seconds=1))
    scene.republisher.run_once(now - timedelta(seconds=1.5))  # it waits
    scene.take()  # the node takes it, and has not said so yet
    assert scene.republisher.run_once(now).done == {}
    scene.beat(at=now + timedelta(seconds=2))
    assert scene.republisher.run_once(now + timedelta(seconds=2)).done == {"messages": 1}


def test_nobody_is_judged_before_the_living_had_the_time_to_say_so(scene: Scene) -> None:
    scene.add("one")
    scene.write(0)
    scene.take()
    assert scene.republisher.run_once(later(7)).done == {}
    assert scene.republisher.run_once(later(10.1)).done == {"messages": 1}


def test_a_retry_in_a_workers_memory_is_waited_for_and_then_sent_with_its_number(scene: Scene) -> None:
    one, two = scene.add("one", "two")
    (dispatch,) = scene.write(0)
    scene.take()
    failed = Attempt(one.id, 2, OutcomeStatus.FAILED, "ValueError", "no", 1.0)
    scene.land(dispatch, attempts=[failed])
    now = later(6.5)  # the third retry waits for up to 2 s
    scene.settle(now)
    scene.republisher.run_once(now)
    assert [[key.strategy_id for key in chunk.jobs] for chunk in scene.take()] == [[two.id]]
    scene.republisher.run_once(now + timedelta(seconds=30))
    by_attempt = {chunk.attempt: [key.strategy_id for key in chunk.jobs] for chunk in scene.take()}
    assert by_attempt[3] == [one.id]


def test_a_correction_since_then_is_what_the_old_dispatch_gets(scene: Scene) -> None:
    scene.add("one")
    (dispatch,) = scene.write(0, publish=False)
    scene.write(0, close=100.7)
    scene.take()
    now = later(7)
    scene.settle(now)
    scene.republisher.run_once(now)
    chunk = next(chunk for chunk in scene.take() if chunk.dispatch_id == dispatch)
    assert (chunk.candle.close, chunk.candle.revision, chunk.rewrites) == (100.7, 1, 1)


def test_the_queues_limit_holds_and_the_rest_follows_as_there_is_room(
    settings: Settings, engine: Engine, publisher: Publisher
) -> None:
    dispatch = settings.dispatch.model_copy(update={"queue_limit": 2})
    scene = Scene(settings.model_copy(update={"dispatch": dispatch}), engine, publisher)
    scene.add("one")
    scene.write(0, 1, 2, publish=False)
    now = later(40)
    scene.settle(now)
    report = scene.republisher.run_once(now)
    assert (report.done, report.has_more) == ({"messages": 2}, True)
    assert publisher.depths()["normal"] == 2
    assert scene.republisher.run_once(now).done == {}
    scene.take()
    assert scene.republisher.run_once(now).done == {"messages": 1}
    assert scene.rows("SELECT DISTINCT sends FROM dispatches") == [(1,)]


def test_what_is_lost_again_and_again_travels_alone_and_is_recorded_in_the_end(scene: Scene) -> None:
    scene.add("one", "two")
    scene.write(0)
    scene.take()
    sizes, end = [], None
    republisher = scene.republisher
    base = datetime.now(UTC)
    republisher.run_once(base)
    for number in range(1, 20):
        scene.change("UPDATE dispatches SET published_at = :at WHERE state = 'open'", at=base)
        scene.change("UPDATE dispatches SET expires_at = :at", at=base + timedelta(days=1))
        report = republisher.run_once(base + timedelta(seconds=10 * number))
        if report.done.get("ended"):
            end = number
            break
        sizes.append([len(chunk.jobs) for chunk in scene.take()])
    assert sizes[0] == [2]
    assert all(size == [1, 1] for size in sizes[1:])
    assert end == scene.settings.maintenance.most_sends
    assert scene.rows("SELECT status, error_class FROM outcomes") == [("failed", "Lost")] * 2
    assert scene.rows("SELECT state FROM dispatches") == [("complete",)]


def test_stopped_strategies_are_skipped_and_paused_ones_still_asked(scene: Scene) -> None:
    broken, bad, paused = scene.add("broken", "bad", "paused")
    scene.write(0)
    scene.take()
    with scene.engine.begin() as connection:
        set_status(connection, "paused", StrategyStatus.PAUSED)
        set_status(connection, "bad", StrategyStatus.QUARANTINED)
    scene.change(
        "INSERT INTO breakers (strategy_id, state, open_until) VALUES (:id, 'open', now() + interval '1 hour')",
        id=broken.id,
    )
    now = later(7)
    scene.settle(now)
    assert scene.republisher.run_once(now).done == {"messages": 1, "ended": 2}
    assert [[key.strategy_id for key in chunk.jobs] for chunk in scene.take()] == [[paused.id]]
    rows = scene.rows("SELECT strategy_id, status, error_class FROM outcomes ORDER BY 1")
    assert rows == [(broken.id, "skipped", "BreakerOpen"), (bad.id, "skipped", "Quarantined")]
