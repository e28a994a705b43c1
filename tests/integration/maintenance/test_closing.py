"""What is due is closed, what is out of date expires."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from app.maintenance.closer import Closer, due_decision
from app.maintenance.expirer import Expirer
from app.storage.closing import close, load_heard, lock_open
from tests.integration.maintenance.scene import Scene, later
from tests.waiting import wait_until


def new_closer(scene: Scene) -> Closer:
    return Closer(scene.engine.begin, scene.settings.rules, timedelta(seconds=30), 1.0)


def decisions(scene: Scene) -> list[Any]:
    return scene.rows("SELECT closed_by, action, missing, weight_heard FROM decisions")


def test_a_dispatch_is_closed_at_its_deadline_and_a_late_outcome_changes_nothing(scene: Scene) -> None:
    one, two = scene.add("one", "two")
    (dispatch,) = scene.write(0)
    closer = new_closer(scene)
    assert closer.run_once(later(59)).done == {}
    assert closer.run_once(later(61)).done == {"by_deadline": 1}
    assert closer.run_once(later(62)).done == {}
    assert decisions(scene) == [("deadline", None, [one.id, two.id], 0.0)]
    assert scene.rows("SELECT state, landed FROM dispatches") == [("closed", 0)]
    scene.land(dispatch, one.id)
    assert scene.rows("SELECT state, landed FROM dispatches") == [("closed", 1)]
    scene.land(dispatch, two.id)
    assert scene.rows("SELECT state, landed FROM dispatches") == [("complete", 2)]
    assert decisions(scene) == [("deadline", None, [one.id, two.id], 0.0)]


def test_the_quorum_is_enough_once_the_grace_is_over(scene: Scene) -> None:
    (heavy,) = scene.add("heavy", weight=3.0)
    (light,) = scene.add("light")
    first, second = scene.write(0, 1)
    scene.land(first, heavy.id)
    scene.land(second, light.id)
    closer = new_closer(scene)
    assert closer.run_once(later(29)).done == {}
    assert closer.run_once(later(31)).done == {"by_quorum": 1}
    assert decisions(scene) == [("quorum", 1, [light.id], 0.75)]
    assert closer.run_once(later(31)).done == {}


def test_a_dispatch_whose_outcome_is_landing_just_now_is_left_to_it(scene: Scene) -> None:
    scene.add("one")
    (dispatch,) = scene.write(0)
    closer = new_closer(scene)
    with scene.engine.begin() as landing:
        landing.execute(text("SELECT 1 FROM dispatches WHERE id = :id FOR UPDATE"), {"id": dispatch})
        assert closer.run_once(later(61)).done == {}
    assert closer.run_once(later(61)).done == {"by_deadline": 1}


def test_a_landing_that_meets_a_close_is_recorded_and_the_decision_stays(scene: Scene) -> None:
    (one,) = scene.add("one")
    (dispatch,) = scene.write(0)
    with ThreadPoolExecutor(1) as pool:
        with scene.engine.begin() as connection:
            closable = lock_open(connection, dispatch)
            assert closable is not None
            landing = pool.submit(scene.land, dispatch, one.id)
            wait_until(lambda: _waits_for_lock(scene), "the landing waits for the row")
            decision = due_decision(closable, load_heard(connection, dispatch), later(61), scene.settings.rules)
            assert decision is not None
            close(connection, closable, decision, later(61))
        landing.result(timeout=10)
    assert decisions(scene) == [("deadline", None, [one.id], 0.0)]
    assert scene.rows("SELECT state FROM dispatches") == [("complete",)]


def _waits_for_lock(scene: Scene) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(scene.rows(query)[0][0])


def test_what_nobody_started_in_time_ends_as_expired_and_no_breaker_counts_it(scene: Scene) -> None:
    one, two = scene.add("one", "two")
    (dispatch,) = scene.write(0)
    scene.land(dispatch, one.id)
    expirer = Expirer(scene.engine.begin, scene.settings.rules, scene.settings.silence, 1.0)
    assert expirer.run_once(later(290)).done == {}
    assert expirer.run_once(later(301)).done == {}
    assert expirer.run_once(later(304)).done == {"expired": 1}
    assert expirer.run_once(later(304)).done == {}
    rows = scene.rows("SELECT strategy_id, status, error_class FROM outcomes ORDER BY 1")
    assert rows == [(one.id, "succeeded", None), (two.id, "expired", "JobExpiredError")]
    assert scene.rows("SELECT state FROM dispatches") == [("complete",)]
    assert scene.rows("SELECT * FROM breakers") == []


def test_what_a_living_node_still_works_on_does_not_expire(scene: Scene) -> None:
    one, two = scene.add("one", "two")
    (dispatch,) = scene.write(0)
    expirer = Expirer(scene.engine.begin, scene.settings.rules, scene.settings.silence, 1.0)
    expirer.run_once(later(300))
    scene.beat(at=later(304), held=(f"{dispatch}.{two.id}",))
    assert expirer.run_once(later(304)).done == {"expired": 1}
    assert scene.rows("SELECT strategy_id FROM outcomes") == [(one.id,)]
    assert expirer.run_once(later(308)).done == {"expired": 1}


def test_the_republisher_leaves_what_is_out_of_date(scene: Scene) -> None:
    scene.add("one")
    scene.write(0)
    scene.take()
    now = later(301)
    scene.settle(now)
    assert scene.republisher.run_once(now).done == {}
