"""Worker nodes and producers: their signs of life."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, JSONB

from app.storage.schema.columns import counter, metadata, moment, required

nodes = Table(
    "nodes",
    metadata,
    Column("node", Text, primary_key=True),
    required("queues", ARRAY(Text())),
    required("slots", Integer()),
    counter("busy", Integer()),
    counter("processed", BigInteger()),
    counter("errors", BigInteger()),
    counter("rss_bytes", BigInteger()),
    moment("started_at"),
    moment("seen_at"),
    Column("held", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("overdue", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    moment("canary_sent_at", nullable=True),
    moment("canary_seen_at", nullable=True),
    counter("events_sent", BigInteger()),
    counter("events_sampled", BigInteger()),
    counter("events_dropped", BigInteger()),
)

#: Producers that live, and what they hold: written about once a second, removed at their end.
producers = Table(
    "producers",
    metadata,
    Column("producer", Text, primary_key=True),
    required("feed", Text()),
    moment("started_at"),
    moment("seen_at"),
    counter("candles", BigInteger()),
    counter("jobs", BigInteger()),
    Column("held", JSONB, nullable=False, server_default=text("'{}'")),
    Column("held_ids", INT8MULTIRANGE, nullable=False, server_default=text("'{}'")),
    counter("expired", BigInteger()),
    counter("let_go", BigInteger()),
    moment("waiting_since", nullable=True),
    Column("reason", Text),
    Column("notes", JSONB, nullable=False, server_default=text("'{}'")),
)
