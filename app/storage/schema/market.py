"""Candles, and what is known of their series."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Integer, PrimaryKeyConstraint, Table, Text

from app.storage.schema.columns import counter, metadata, moment, required

candles = Table(
    "candles",
    metadata,
    required("symbol", Text()),
    required("timeframe", Text()),
    moment("open_time"),
    required("open", Double()),
    required("high", Double()),
    required("low", Double()),
    required("close", Double()),
    required("volume", Double()),
    counter("revision", Integer()),
    required("source", Text()),
    moment("received_at", default=True),
    PrimaryKeyConstraint("symbol", "timeframe", "open_time"),
)

#: What the producer knows of each series: its newest candle, and how often its past was changed.
series = Table(
    "series",
    metadata,
    required("symbol", Text()),
    required("timeframe", Text()),
    moment("last_open_time", nullable=True),
    counter("rewrites", BigInteger()),
    PrimaryKeyConstraint("symbol", "timeframe"),
)
