"""A strategy that leaks from job to job: its slot is replaced, and nobody loses anything by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_celery import CeleryTestSetup

from app.settings import Settings
from tests.acceptance.scene import Scene, assert_exactly_once
from tests.building import ListFeed, definition, walk
from tests.conftest import Deploy

#: MiB of one slot; far above what it has after its start.
BOUND_MB = 300
CANDLES, LEAKED_MB = 60, 20


@pytest.fixture(scope="module")
def settings(deploy: Deploy) -> Iterator[Settings]:
    with deploy() as settings:
        worker = settings.worker.model_copy(update={"slot_memory_mb": BOUND_MB})
        yield settings.model_copy(update={"worker": worker})


def test_a_slot_that_grew_too_large_is_replaced(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    leaks = definition("li.leaks", "tests.quant.misbehaving:Leaks", symbols=["LI-ONE"], params={"mb": LEAKED_MB})
    scene.register(leaks, definition("li.good", symbols=["LI-ONE"]))
    first = celery_setup.worker.process.slots()
    scene.run(ListFeed(*([candle] for candle in walk("LI-ONE", CANDLES))))
    scene.wait_until_landed("LI-ONE")
    assert_exactly_once(scene, "LI-ONE")
    rows = scene.outcomes("LI-ONE")
    assert {(row["status"], row["attempt"]) for row in rows} == {("succeeded", 0)}
    assert scene.attempts("LI-ONE") == []
    used = {row["detail"]["extras"]["pid"] for row in rows if row["name"] == "li.leaks"}
    # two slots could not have kept it all
    assert CANDLES * LEAKED_MB > 2 * (BOUND_MB + LEAKED_MB)
    assert used - first
    assert "slot died" not in celery_setup.worker.logs()
