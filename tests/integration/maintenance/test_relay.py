"""Order intents reach the stream in their order, at least once, whatever dies in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
import redis
from sqlalchemy import Connection

from app.errors import StorageUnavailableError
from app.maintenance.base import Begin
from app.maintenance.partitions import Retention
from app.maintenance.relay import Relay
from tests.integration.maintenance.scene import Scene, later

#: Entries that a stream keeps in these tests.
LENGTH = 1000

_PLACE = """
    INSERT INTO actions (idempotency_key, strategy_id, symbol, timeframe, open_time, strategy_revision, kind, side,
                         size_percent, quantity, price, stop, cause, correlation_id, state, reason)
    SELECT 'key-' || n, :strategy, 'BTC-USD', '1h', '2024-01-01', 1, 'open', 1, 1, 0.5, 100, 95, 'signal', 'c', :state,
           NULL
    FROM generate_series(CAST(:first AS int), :last) AS n ORDER BY n
"""


def relay_of(scene: Scene, begin: Begin | None = None) -> Relay:
    return Relay(begin or scene.engine.begin, scene.publisher, scene.settings.action_stream, LENGTH, 0.2)


def place(scene: Scene, first: int, last: int, state: str = "pending") -> None:
    (strategy,) = scene.add("one")
    scene.change(_PLACE, strategy=strategy.id, first=first, last=last, state=state)


def entries(scene: Scene) -> list[dict[str, str]]:
    with redis.from_url(scene.settings.broker_dsn, decode_responses=True) as client:
        return [fields for _, fields in client.xrange(scene.settings.action_stream)]


def keys(scene: Scene) -> list[str]:
    return [fields["idempotency_key"] for fields in entries(scene)]


def test_intents_are_appended_in_order_and_noted_as_sent(scene: Scene) -> None:
    place(scene, 1, 3)
    place(scene, 4, 4, state="refused")
    relay = relay_of(scene)
    assert relay.run_once(later(0)).done == {"sent": 3}
    assert relay.run_once(later(0)).done == {}
    assert keys(scene) == ["key-1", "key-2", "key-3"]
    first = entries(scene)[0]
    assert (first["strategy"], first["kind"], first["side"], first["stop"]) == ("one", "open", "long", "95.0")
    assert "target" not in first
    states = scene.rows("SELECT state, count(*), count(sent_at) FROM actions GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in states] == [("refused", 1, 0), ("sent", 3, 3)]


def test_relay_that_dies_between_appending_and_noting_repeats_the_same_keys(scene: Scene) -> None:
    place(scene, 1, 2)
    begun = 0

    @contextmanager
    def begin() -> Iterator[Connection]:
        nonlocal begun
        begun += 1
        if begun == 2:
            raise StorageUnavailableError("the session has ended")
        with scene.engine.begin() as connection:
            yield connection

    relay_of(scene).run_once(later(0))
    place(scene, 3, 4)
    with pytest.raises(StorageUnavailableError):
        relay_of(scene, begin).run_once(later(0))
    assert relay_of(scene).run_once(later(0)).done == {"sent": 2}
    assert keys(scene) == ["key-1", "key-2", "key-3", "key-4", "key-3", "key-4"]


def test_what_was_sent_lately_is_sent_again_after_redis_was_emptied(scene: Scene) -> None:
    place(scene, 1, 2)
    relay = relay_of(scene)
    relay.run_once(later(0))
    scene.change("UPDATE actions SET sent_at = sent_at - interval '2 hours' WHERE idempotency_key = 'key-1'")
    with redis.from_url(scene.settings.broker_dsn) as client:
        client.delete(scene.settings.action_stream)
    place(scene, 3, 3)
    assert relay.run_once(later(0)).done == {"sent": 2, "again": 1}
    assert keys(scene) == ["key-2", "key-3"]
    with redis.from_url(scene.settings.broker_dsn) as client:
        client.xtrim(scene.settings.action_stream, maxlen=0)
    assert relay.run_once(later(0)).done == {}, "a stream that its readers have emptied is still there"


def test_old_history_goes_and_what_is_to_be_sent_stays(scene: Scene) -> None:
    place(scene, 1, 2, state="sent")
    place(scene, 3, 3)
    place(scene, 4, 4, state="refused")
    scene.change("UPDATE actions SET created_at = created_at - interval '91 days' WHERE idempotency_key <> 'key-4'")
    scene.change("""
        INSERT INTO position_events (strategy_id, symbol, timeframe, open_time, number, strategy_revision, kind, reason,
                                     side, price, quantity, fee, profit, correlation_id, created_at)
        SELECT 1, 'BTC-USD', '1h', '2024-01-01', n, 1, 'opened', 'signal', 1, 1, 1, 0, 0, 'c',
               now() - CAST(n * 50 || ' days' AS interval)
        FROM generate_series(0, 3) AS n ORDER BY n DESC
    """)
    retention = Retention(scene.engine.begin, timedelta(days=90))
    assert retention.run_once(later(0)).done == {"history": 4}
    assert retention.run_once(later(0)).done == {}
    left = scene.rows("SELECT idempotency_key FROM actions ORDER BY id")
    assert [row[0] for row in left] == ["key-3", "key-4"]
    assert scene.rows("SELECT number FROM position_events ORDER BY id") == [(1,), (0,)]
