"""Worker nodes: their heartbeats, and which of them are alive."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.domain.base import Value
from app.storage.schema import nodes


class NodeBeat(Value):
    """What a worker node says of itself."""

    node: str
    queues: tuple[str, ...]
    slots: int
    busy: int
    """Slots that run a chunk now."""
    processed: int
    """Jobs and units of runs executed to their end since the node started; one that was executed twice counts twice."""
    errors: int
    """Of these, those that did not succeed."""
    events_sent: int = 0
    """Events of jobs that its slots sent."""
    events_sampled: int = 0
    """Events of successes that were left out, because there were more than the rate allows."""
    events_dropped: int = 0
    """Events that were lost: a slot's buffer was full or Redis away."""
    rss_bytes: int
    """Resident memory of the node: its main process and all its slots."""
    held: tuple[str, ...] = ()
    """Ids of the messages it holds, running or waiting for a slot."""
    overdue: tuple[str, ...] = ()
    """Of these, those that have run past their hard limit."""
    started_at: datetime


def save_beat(connection: Connection, beat: NodeBeat) -> None:
    """Write a node's heartbeat, in the caller's transaction."""
    values: dict[str, Any] = {**beat.model_dump(), "queues": list(beat.queues), "held": list(beat.held)}
    values |= {"overdue": list(beat.overdue), "seen_at": func.clock_timestamp()}
    changes = {name: value for name, value in values.items() if name != "node"}
    connection.execute(insert(nodes).values(**values).on_conflict_do_update(index_elements=["node"], set_=changes))


def answer_canary(connection: Connection, node: str) -> None:
    """Note that a node's canary came through its queue and one of its slots."""
    connection.execute(update(nodes).where(nodes.c.node == node).values(canary_seen_at=func.clock_timestamp()))


def forget_node(connection: Connection, node: str) -> None:
    """Remove a node that said goodbye. Idempotent."""
    connection.execute(nodes.delete().where(nodes.c.node == node))


def load_nodes(connection: Connection, silent_for: timedelta) -> list[dict[str, Any]]:
    """Load all nodes by name, each with `is_alive`: seen within `silent_for`."""
    alive = nodes.c.seen_at > func.clock_timestamp() - silent_for
    rows = connection.execute(select(nodes, alive.label("is_alive")).order_by(nodes.c.node))
    return [dict(row) for row in rows.mappings()]


def count_slots(connection: Connection, silent_for: timedelta, queues: Collection[str]) -> int:
    """Return the slots of the nodes that were seen within `silent_for` and serve one of the queues."""
    alive = nodes.c.seen_at > func.clock_timestamp() - silent_for
    counted = select(func.coalesce(func.sum(nodes.c.slots), 0)).where(alive, nodes.c.queues.overlap(list(queues)))
    return int(connection.execute(counted).scalar_one())
