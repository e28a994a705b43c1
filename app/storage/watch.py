"""Nodes as maintenance watches them: by a moment it is given, where `app.storage.nodes` reads the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, text, update

from app.storage.schema import nodes


@dataclass(frozen=True, slots=True)
class WatchedNode:
    """A node that was seen lately."""

    node: str
    slots: int
    busy: int
    held: tuple[str, ...]
    """Ids of the messages it holds."""
    overdue: tuple[str, ...]
    """Of these, those that ran past their hard limit."""
    canary_sent_at: datetime | None
    canary_seen_at: datetime | None
    seen_at: datetime


_FORGET_SILENT = text("DELETE FROM nodes WHERE seen_at <= :seen_before RETURNING node")
_FORGET_DEAF = text("DELETE FROM nodes WHERE node = :node AND canary_sent_at = :sent_at")


def load_living(connection: Connection, seen_after: datetime) -> list[WatchedNode]:
    """Load the nodes seen since a given moment, by name."""
    query = select(nodes).where(nodes.c.seen_at > seen_after).order_by(nodes.c.node)
    return [
        WatchedNode(
            node=row.node,
            slots=row.slots,
            busy=row.busy,
            held=tuple(row.held),
            overdue=tuple(row.overdue),
            canary_sent_at=row.canary_sent_at,
            canary_seen_at=row.canary_seen_at,
            seen_at=row.seen_at,
        )
        for row in connection.execute(query)
    ]


def mark_canary_sent(connection: Connection, node: str, sent_at: datetime) -> None:
    """Note that a canary was sent to a node."""
    connection.execute(update(nodes).where(nodes.c.node == node).values(canary_sent_at=sent_at))


def forget_deaf(connection: Connection, node: str, sent_at: datetime) -> None:
    """Remove a node that did not answer its canary, unless it was sent another meanwhile."""
    connection.execute(_FORGET_DEAF, {"node": node, "sent_at": sent_at})


def forget_silent(connection: Connection, seen_before: datetime) -> list[str]:
    """Remove nodes not seen since a given moment; return their names."""
    return sorted(connection.execute(_FORGET_SILENT, {"seen_before": seen_before}).scalars())
