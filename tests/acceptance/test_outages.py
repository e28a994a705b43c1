"""Servers that go away under a working fleet: everything waits, goes on, and nothing is lost or recorded twice."""

from __future__ import annotations

import pytest
from pytest_celery import CeleryTestSetup

from app import embedded
from app.settings import BrokerSettings, Settings, WorkerSettings
from app.storage.engine import build_engine
from app.storage.migrate import upgrade
from tests.acceptance.scene import Scene, assert_exactly_once
from tests.building import ListFeed, definition, walk
from tests.conftest import settings_on
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def settings(own_servers: embedded.Servers) -> Settings:
    # what a node holds when Redis goes away is only delivered again after the visibility timeout: make that short
    settings = settings_on(own_servers.database_url, own_servers.broker_url, "").model_copy(
        update={
            "broker": BrokerSettings(visibility_timeout_s=10, restore_interval_s=1),
            "worker": WorkerSettings(window=160, timeout_ms=1000, hard_grace_s=1.0, retry_cap_s=0.2, shutdown_s=5.0),
        }
    )
    engine = build_engine(settings.database_dsn, name="tests")
    upgrade(engine)
    engine.dispose()
    return settings


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_nothing_is_lost_over_a_restart(
    celery_setup: CeleryTestSetup, scene: Scene, own_servers: embedded.Servers, kind: str
) -> None:
    symbol = f"{kind.upper()}-ONE"
    slow = definition(f"{kind}.slow", "tests.quant.revealing:Slow", symbols=[symbol], params={"seconds": 0.01})
    scene.register(slow, definition(f"{kind}.ema", symbols=[symbol]))
    with scene.producing(ListFeed(*([candle] for candle in walk(symbol, 200))), chunking=False) as producer:
        wait_until(lambda: len(scene.outcomes(symbol)) > 50, "work is under way")
        getattr(own_servers, kind).restart()
        producer.join(60)
        assert not producer.is_alive()
    scene.wait_until_landed(symbol)
    assert_exactly_once(scene, symbol)
    assert {row["status"] for row in scene.outcomes(symbol)} == {"succeeded"}
    assert len(scene.dispatches(symbol)) == 200
