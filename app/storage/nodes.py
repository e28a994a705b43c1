"""Worker nodes: their heartbeats, and which of them are alive."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select
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
    """Jobs ended since the node started."""
    errors: int
    """Of these, jobs that did not succeed."""
    rss_bytes: int
    """Resident memory of the node: its main process and all its slots."""
    started_at: datetime


def save_beat(connection: Connection, beat: NodeBeat) -> None:
    """Write a node's heartbeat, in the caller's transaction."""
    values: dict[str, Any] = {**beat.model_dump(), "queues": list(beat.queues), "seen_at": func.clock_timestamp()}
    changes = {name: value for name, value in values.items() if name != "node"}
    connection.execute(insert(nodes).values(**values).on_conflict_do_update(index_elements=["node"], set_=changes))


def forget_node(connection: Connection, node: str) -> None:
    """Remove a node that said goodbye. Idempotent."""
    connection.execute(nodes.delete().where(nodes.c.node == node))


def load_nodes(connection: Connection, silent_for: timedelta) -> list[dict[str, Any]]:
    """Load all nodes by name, each with `is_alive`: seen within `silent_for`."""
    alive = nodes.c.seen_at > func.clock_timestamp() - silent_for
    rows = connection.execute(select(nodes, alive.label("is_alive")).order_by(nodes.c.node))
    return [dict(row) for row in rows.mappings()]
