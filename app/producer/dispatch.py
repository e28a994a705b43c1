"""Dispatch: candles and their dispatches in one transaction, then their chunks, ready to publish."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Engine

from app.broker import QUEUES, Envelope, envelope
from app.domain.candles import Candle
from app.domain.jobs import Chunk
from app.producer.subscriptions import PlannedChunk, Roster, Subscriptions
from app.storage.candles import RecordedCandle, record_candles
from app.storage.engine import translated
from app.storage.ledger import OpenedDispatch, mark_published, open_dispatches
from app.storage.partitions import ensure_partitions
from app.storage.strategies import load_strategies, load_version


@dataclass(frozen=True, slots=True)
class Written:
    """What one batch of candles became."""

    candles: int
    """New candles and corrections; candles seen before are not counted."""
    dispatch_ids: tuple[int, ...]
    envelopes: tuple[Envelope, ...]
    """Urgent chunks first."""


class Dispatcher:
    """Writes candles with their dispatches and builds the chunks. Knows nothing of feeds and queues."""

    def __init__(
        self, engine: Engine, source: str, *, jobs_in_chunk: int, patience: timedelta, hard_grace_s: float
    ) -> None:
        self._engine = engine
        self._source = source
        self._jobs_in_chunk = jobs_in_chunk
        self._patience = patience
        self._hard_grace_s = hard_grace_s
        self._subscriptions = Subscriptions(-1, [], jobs_in_chunk)
        self._partitioned_below = 0

    def write(self, candles: Sequence[Candle]) -> Written:
        """Record candles and open their dispatches, in one transaction. A candle seen before opens nothing.

        Args:
            candles: no (symbol, timeframe, open_time) twice; oldest first within a series.

        Raises:
            StorageUnavailableError: Postgres went away; nothing or everything was written, write them again.
        """
        with translated(), self._engine.begin() as connection:
            self._refresh(connection)
            recorded = record_candles(connection, candles, self._source)
            matched = [(r, self._subscriptions.match(r.candle.symbol, r.candle.timeframe)) for r in recorded]
            asked = [(r, roster, uuid.uuid4().hex) for r, roster in matched if roster is not None]
            opened = open_dispatches(
                connection, [(r, roster.expected, correlation) for r, roster, correlation in asked], self._patience
            )
            self._ensure_partitions(connection, max((d.id for d in opened.values()), default=0))
        ready = [(opened[c], r, roster) for r, roster, c in asked if c in opened]
        envelopes = [each for dispatch, r, roster in ready for each in self._envelopes(dispatch, r, roster)]
        # a stable sort: urgent first, candles in order within a priority
        envelopes.sort(key=lambda each: QUEUES.index(each.chunk.priority.value))
        return Written(len(recorded), tuple(dispatch.id for dispatch, _, _ in ready), tuple(envelopes))

    def mark_published(self, dispatch_ids: Sequence[int]) -> None:
        """Note that the chunks of these dispatches are on their queues. Idempotent.

        Raises:
            StorageUnavailableError: Postgres went away.
        """
        if dispatch_ids:
            with translated(), self._engine.begin() as connection:
                mark_published(connection, dispatch_ids)

    def _refresh(self, connection: Connection) -> None:
        version = load_version(connection)
        if version != self._subscriptions.version:
            self._subscriptions = Subscriptions(version, load_strategies(connection), self._jobs_in_chunk)

    def _ensure_partitions(self, connection: Connection, newest: int) -> None:
        if newest >= self._partitioned_below:
            self._partitioned_below = ensure_partitions(connection)

    def _envelopes(self, dispatch: OpenedDispatch, recorded: RecordedCandle, roster: Roster) -> list[Envelope]:
        return [self._envelope(dispatch, recorded, planned) for planned in roster.chunks]

    def _envelope(self, dispatch: OpenedDispatch, recorded: RecordedCandle, planned: PlannedChunk) -> Envelope:
        chunk = Chunk(
            dispatch_id=dispatch.id,
            candle=recorded.candle,
            priority=planned.priority,
            jobs=planned.jobs,
            correlation_id=dispatch.correlation_id,
            created_at=dispatch.created_at,
            deadline=dispatch.deadline,
            catalogue_version=self._subscriptions.version,
            previous_open_time=recorded.previous_open_time,
            rewrites=recorded.rewrites,
        )
        hard_limit_s = planned.timeout_s + self._hard_grace_s
        return envelope(chunk, names=planned.names, label=planned.label, hard_limit_s=hard_limit_s)
