"""Partitions come in time and go when they are old."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from app.maintenance.partitions import Partitioner, Retention
from app.storage.retention import list_partitions
from tests.integration.maintenance.scene import Scene, later


def partitions(scene: Scene) -> list[int]:
    with scene.engine.begin() as connection:
        return list_partitions(connection)


def renumber(scene: Scene, start: int) -> None:
    scene.change(f"ALTER TABLE dispatches ALTER COLUMN id RESTART WITH {start}")


def test_partitions_are_made_ahead(scene: Scene) -> None:
    scene.add("one")
    renumber(scene, 100_000)
    partitioner = Partitioner(scene.engine.begin)
    assert partitioner.run_once(later(0)).done == {}
    scene.write(0)
    scene.change("DROP TABLE outcomes_p000000300000")
    assert partitioner.run_once(later(0)).done == {"made": 1}
    assert partitioner.run_once(later(0)).done == {}
    assert partitions(scene) == [0, 100_000, 200_000, 300_000]


def test_old_and_finished_partitions_are_dropped_with_what_belonged_to_them(scene: Scene) -> None:
    (one,) = scene.add("one")
    old = scene.write(0, 1)
    for dispatch in old:
        scene.land(dispatch, one.id)
    renumber(scene, 100_000)
    (fresh,) = scene.write(2)
    scene.land(fresh, one.id)
    retention = Retention(scene.engine.begin, timedelta(days=90))
    assert retention.run_once(later(0)).done == {}
    scene.change("UPDATE dispatches SET created_at = created_at - interval '91 days' WHERE id < 100000")
    scene.change("UPDATE dispatches SET state = 'open' WHERE id = :id", id=old[0])
    assert retention.run_once(later(0)).done == {}, "not before it is finished"
    scene.change("UPDATE dispatches SET state = 'complete'")
    assert retention.run_once(later(0)).done == {"dropped": 1, "deleted": 2}
    assert retention.run_once(later(0)).done == {}
    assert partitions(scene)[0] == 100_000
    assert scene.rows("SELECT dispatch_id FROM outcomes") == [(fresh,)]
    assert scene.rows("SELECT id FROM dispatches") == [(fresh,)]
    assert scene.rows("SELECT dispatch_id FROM decisions") == [(fresh,)]


def test_a_long_report_puts_retention_off_and_nothing_else(scene: Scene) -> None:
    (one,) = scene.add("one")
    (old,) = scene.write(0)
    scene.land(old, one.id)
    renumber(scene, 100_000)
    scene.write(1)
    scene.change("UPDATE dispatches SET created_at = created_at - interval '91 days' WHERE id < 100000")
    retention = Retention(scene.engine.begin, timedelta(days=90))
    with scene.engine.connect() as report:
        report.execute(text("SELECT count(*) FROM outcomes"))
        assert retention.run_once(later(0)).done == {}
    assert retention.run_once(later(0)).done == {"dropped": 1, "deleted": 1}
