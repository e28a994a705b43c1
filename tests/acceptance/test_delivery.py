"""At least once delivered, exactly once recorded: duplicates, late copies, and messages that are no chunks."""

from __future__ import annotations

import re

from pytest_celery import CeleryTestSetup

from app.broker import EXECUTE_TASK
from app.domain.strategies import Limits
from tests.acceptance.scene import Scene, assert_exactly_once
from tests.building import definition, walk


def test_every_message_three_times_changes_no_row(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    scene.register(
        definition("dup.ema", symbols=["DUP-ONE"]),
        definition("dup.raises", "tests.quant.misbehaving:Raises", symbols=["DUP-ONE"], limits=Limits(retries=2)),
        definition("dup.digest", "tests.quant.revealing:Digest", symbols=["DUP-ONE"]),
    )
    scene.publisher.times = 3
    scene.play(walk("DUP-ONE", 30))
    scene.wait_until_idle()
    assert_exactly_once(scene, "DUP-ONE")
    ended = {(row["name"], row["status"], row["attempt"]) for row in scene.outcomes("DUP-ONE")}
    assert ended == {("dup.ema", "succeeded", 0), ("dup.digest", "succeeded", 0), ("dup.raises", "failed", 2)}
    tried = [(attempt["dispatch_id"], attempt["attempt"]) for attempt in scene.attempts("DUP-ONE")]
    assert tried == [(dispatch["id"], number) for dispatch in scene.dispatches("DUP-ONE") for number in range(2)]


def test_message_that_comes_again_after_the_decision_changes_nothing(
    celery_setup: CeleryTestSetup, scene: Scene
) -> None:
    scene.register(definition("late.ema", symbols=["LATE-ONE"]), definition("late.macd", "macd", symbols=["LATE-ONE"]))
    scene.play(walk("LATE-ONE", 20))
    before = (scene.outcomes("LATE-ONE"), scene.decisions("LATE-ONE"), scene.dispatches("LATE-ONE"))
    assert len(scene.publisher.sent) == 20
    scene.wait_until_idle()
    processed = scene.processed()
    scene.publisher.publish(list(scene.publisher.sent))
    scene.wait_until_idle()
    assert scene.processed() == processed + 40  # the copies were executed too
    assert (scene.outcomes("LATE-ONE"), scene.decisions("LATE-ONE"), scene.dispatches("LATE-ONE")) == before


def test_message_that_is_no_chunk_is_refused_once_and_work_goes_on(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    scene.register(definition("odd.ema", symbols=["ODD-ONE"]))
    for body in ({"v": 99}, "nonsense", {"v": 1, "dispatch": "?"}):
        celery_setup.app.send_task(EXECUTE_TASK, args=[body], queue="high")
    scene.play(walk("ODD-ONE", 5))
    scene.wait_until_idle()
    assert_exactly_once(scene, "ODD-ONE")
    assert len(re.findall(r"\[error +\] message refused", celery_setup.worker.logs())) == 3


def test_refused_message_is_one_line_in_the_log_and_no_traceback(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    celery_setup.app.send_task(EXECUTE_TASK, args=[{"v": 98}], queue="high")
    celery_setup.worker.wait_for_log("found 98")
    scene.wait_until_idle()
    assert "Traceback" not in celery_setup.worker.logs()


def test_chunk_of_a_dispatch_that_does_not_exist_records_nothing(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    scene.register(definition("ghost.ema", symbols=["GHOST-ONE"]))
    scene.play(walk("GHOST-ONE", 2))
    envelope = scene.publisher.sent[-1]
    ghost = envelope.chunk.model_copy(update={"dispatch_id": 99_999})
    scene.publisher.publish([type(envelope)(ghost, None, "ghost", 10.0)])
    scene.wait_until_idle()
    assert_exactly_once(scene, "GHOST-ONE")
    assert len(scene.outcomes("GHOST-ONE")) == 2
    assert 99_999 not in scene.decisions("GHOST-ONE")
