"""Producers: their signs of life, what they hold, and which of them are alive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.ranges import MultiRange, Range

from app.domain.base import Value
from app.storage.schema import producers

_FORGET_SILENT = text("DELETE FROM producers WHERE seen_at <= :seen_before RETURNING producer")


class ProducerBeat(Value):
    """What a producer says of itself."""

    producer: str
    """``host:pid``."""
    feed: str
    started_at: datetime
    candles: int = 0
    """New candles and corrections written since it started."""
    jobs: int = 0
    """Jobs of their dispatches."""
    held: Mapping[str, int] = {}
    """Chunks that are committed and wait for room, by queue."""
    held_ids: tuple[int, ...] = ()
    """Dispatches that it will still publish, or mark as published."""
    expired: int = 0
    """Chunks that were out of date before there was room."""
    let_go: int = 0
    """Chunks that were left to maintenance because it held too many."""
    waiting_since: datetime | None = None
    """Since when it holds back its feed; None when it does not."""
    reason: str | None = None
    """Why, for people."""
    notes: Mapping[str, JsonValue] = {}
    """What else it wants operators to know."""


def save_producer(connection: Connection, beat: ProducerBeat) -> None:
    """Write a producer's sign of life, in the caller's transaction."""
    values: dict[str, Any] = {**beat.model_dump(), "held_ids": to_ranges(beat.held_ids)}
    values["seen_at"] = func.clock_timestamp()
    changes = {name: value for name, value in values.items() if name != "producer"}
    query = insert(producers).values(**values)
    connection.execute(query.on_conflict_do_update(index_elements=["producer"], set_=changes))


def forget_producer(connection: Connection, producer: str) -> None:
    """Remove a producer that has ended: what it left is maintenance's. Idempotent."""
    connection.execute(producers.delete().where(producers.c.producer == producer))


def forget_silent_producers(connection: Connection, seen_before: datetime) -> list[str]:
    """Remove producers not seen since a given moment; return their names."""
    return sorted(connection.execute(_FORGET_SILENT, {"seen_before": seen_before}).scalars())


def load_producers(connection: Connection, silent_for: timedelta) -> list[dict[str, Any]]:
    """Load all producers by name, each with `is_alive`: seen within `silent_for`."""
    shown = [column for column in producers.c if column.name != "held_ids"]
    alive = producers.c.seen_at > func.clock_timestamp() - silent_for
    rows = connection.execute(select(*shown, alive.label("is_alive")).order_by(producers.c.producer))
    return [dict(row) for row in rows.mappings()]


def to_ranges(ids: Iterable[int]) -> MultiRange[int]:
    """Return ids as ranges: they are handed out in order, so a few ranges hold many."""
    ordered = sorted(set(ids))
    if not ordered:
        return MultiRange()
    breaks = [(before, after) for before, after in pairwise(ordered) if after != before + 1]
    firsts = [ordered[0], *(after for _, after in breaks)]
    lasts = [*(before for before, _ in breaks), ordered[-1]]
    return MultiRange(Range(first, last + 1) for first, last in zip(firsts, lasts, strict=True))
