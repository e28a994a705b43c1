"""Builders of what tests are about: candles, definitions, outcomes, feeds, the environment of a process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine

from app.broker import Publisher, create_celery
from app.domain.candles import Candle, Timeframe
from app.domain.costs import Room
from app.domain.jobs import Outcome, OutcomeStatus, Signal
from app.domain.strategies import (
    Limits,
    Priority,
    RegisteredStrategy,
    StrategyDefinition,
    StrategyStatus,
    Subscription,
    Trading,
)
from app.feeds.base import FeedReport
from app.feeds.generated import GeneratedFeed
from app.settings import DELIMITER, PREFIX, Settings
from app.storage.strategies import save_definition

REPOSITORY = Path(__file__).parents[1]

#: Where made-up series begin; on the grid of every timeframe.
START = datetime(2024, 1, 1, tzinfo=UTC)


def candle(index: int = 0, symbol: str = "BTC-USD", timeframe: Timeframe = Timeframe.H1, **changes: Any) -> Candle:
    """Build the candle number `index` of a quiet series."""
    values = {"open": 100.0, "high": 101.0, "low": 99.0, "close": 100.5, "volume": 10.0, **changes}
    return Candle(symbol=symbol, timeframe=timeframe, open_time=START + index * timeframe.duration, **values)


def walk(symbol: str, count: int, seed: int = 7, timeframe: Timeframe = Timeframe.H1) -> list[Candle]:
    """Build a lively series; the same candles for the same seed, whatever the symbol is called."""
    feed = GeneratedFeed(["WALK"], timeframe, count, seed, START)
    return [each.model_copy(update={"symbol": symbol}) for batch in feed.batches() for each in batch]


class ListFeed:
    """A feed of given batches."""

    source = "list"
    can_wait = True

    def __init__(self, *batches: Sequence[Candle]) -> None:
        self._batches = batches
        self.report = FeedReport()

    def batches(self) -> Iterator[list[Candle]]:
        for batch in self._batches:
            self.report.accepted += len(batch)
            yield list(batch)


def by_close(*series: Sequence[Candle]) -> ListFeed:
    """Build a feed of several series of the same times: all candles of one close come together."""
    return ListFeed(*zip(*series, strict=True))


def definition(
    name: str,
    implementation: str = "ema_cross",
    *,
    symbols: Sequence[str] = ("*",),
    timeframes: Sequence[str] = ("*",),
    params: dict[str, Any] | None = None,
    priority: Priority = Priority.NORMAL,
    weight: float = 1.0,
    limits: Limits | None = None,
    status: StrategyStatus = StrategyStatus.ACTIVE,
    trading: Trading | None = None,
) -> StrategyDefinition:
    """Build a strategy definition."""
    return StrategyDefinition(
        name=name,
        implementation=implementation,
        params=params or {},
        subscription=Subscription(symbols=tuple(symbols), timeframes=tuple(timeframes)),
        priority=priority,
        weight=weight,
        limits=limits or Limits(),
        status=status,
        trading=trading,
    )


def register(engine: Engine, *definitions: StrategyDefinition) -> list[RegisteredStrategy]:
    """Put definitions into the catalogue, all in one transaction."""
    with engine.begin() as connection:
        return [save_definition(connection, each).strategy for each in definitions]


def outcome(strategy_id: int, **changes: Any) -> Outcome:
    """Build an outcome: a succeeded one unless told otherwise."""
    values: dict[str, Any] = {
        "strategy_id": strategy_id,
        "strategy_revision": 1,
        "status": OutcomeStatus.SUCCEEDED,
        "signal": Signal(action=1, strength=0.5),
        "queued_ms": 1.5,
        "processing_ms": 2.5,
    }
    return Outcome(**{**values, **changes})


def build_publisher(settings: Settings, *, jobs_in_message: int | None = None) -> Publisher:
    """Build a publisher as a producer has it; close it in the end."""
    room = settings.dispatch.room if jobs_in_message is None else Room(jobs_in_message)
    return Publisher(create_celery(settings), room)


def environment(settings: Settings) -> dict[str, str]:
    """Return the whole environment of a process that shall load exactly these settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**own, **dict(_variables(settings.model_dump(exclude_defaults=True), PREFIX))}


def _variables(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _variables(value, f"{prefix}{name.upper()}{DELIMITER}")
        elif isinstance(value, SecretStr):
            yield f"{prefix}{name.upper()}", value.get_secret_value()
        else:
            plain = value if isinstance(value, str | Path) else json.dumps(value)
            yield f"{prefix}{name.upper()}", str(plain)
