"""Dead letters: messages that no worker could make sense of, kept so that somebody looks at them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from app.storage.schema import dead_letters

#: Longest part of a message that is kept, characters.
KEPT = 10_000


def save_dead_letter(connection: Connection, reason: str, body: str, worker: str) -> None:
    """Keep a message and why it was refused."""
    values = {"reason": storable(reason), "body": storable(body), "worker": storable(worker)}
    connection.execute(insert(dead_letters).values(values))


def storable(text: str) -> str:
    """Return the beginning of a text as Postgres can hold it: no NUL, and nothing that is not a character."""
    return text[:KEPT].replace("\x00", "\ufffd").encode(errors="replace").decode()


def list_dead_letters(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Load the newest dead letters, newest first."""
    query = select(dead_letters).order_by(dead_letters.c.id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def count_dead_letters(connection: Connection) -> tuple[int, datetime | None]:
    """Return how many dead letters there are, and when the newest one came."""
    row = connection.execute(select(func.count(), func.max(dead_letters.c.received_at))).one()
    return int(row[0]), row[1]
