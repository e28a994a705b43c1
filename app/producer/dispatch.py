"""Dispatch: candles and their dispatches in one transaction, then their chunks, ready to publish."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import Connection, Engine

from app.broker import QUEUES, Envelope, envelope
from app.domain.candles import Candle
from app.domain.decisions import DecisionRules
from app.domain.jobs import Chunk, OutcomeStatus
from app.producer.subscriptions import PlannedChunk, Roster, Subscriptions
from app.storage.breakers import load_blocked, start_probes
from app.storage.candles import RecordedCandle, record_candles
from app.storage.engine import translated
from app.storage.landing import land_ends
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A recorded candle and who answers it."""

    recorded: RecordedCandle
    roster: Roster
    correlation_id: str
    left_out: frozenset[int] = frozenset()
    """Strategies whose breaker is open: expected, but not sent a job."""


class Dispatcher:
    """Writes candles with their dispatches and builds the chunks. Knows nothing of feeds and queues.

    Args:
        engine: of Postgres.
        source: where the candles come from.
        jobs_in_chunk: most jobs in one message.
        patience: time until a decision is due.
        lifetime: time until a job that was not executed is out of date.
        hard_grace_s: seconds a chunk may run past its longest soft limit.
        rules: how a dispatch is decided that nobody can be asked for.
    """

    def __init__(
        self,
        engine: Engine,
        source: str,
        *,
        jobs_in_chunk: int,
        patience: timedelta,
        lifetime: timedelta,
        hard_grace_s: float,
        rules: DecisionRules,
    ) -> None:
        self._engine = engine
        self._source = source
        self._jobs_in_chunk = jobs_in_chunk
        self._patience = patience
        self._lifetime = lifetime
        self._hard_grace_s = hard_grace_s
        self._rules = rules
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
            asked = self._leave_out(connection, self._ask(recorded))
            opened = self._open(connection, asked)
        ready = [(opened[a.correlation_id], a) for a in asked if a.correlation_id in opened]
        envelopes = [each for dispatch, a in ready for each in self._envelopes(dispatch, a)]
        # a stable sort: urgent first, candles in order within a priority
        envelopes.sort(key=lambda each: QUEUES.index(each.chunk.priority.value))
        return Written(len(recorded), tuple(dispatch.id for dispatch, _ in ready), tuple(envelopes))

    def mark_published(self, dispatch_ids: Sequence[int]) -> None:
        """Note that the chunks of these dispatches are on their queues, once more.

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

    def _ask(self, recorded: Sequence[RecordedCandle]) -> list[_Asked]:
        matched = [(r, self._subscriptions.match(r.candle.symbol, r.candle.timeframe)) for r in recorded]
        return [_Asked(r, roster, uuid.uuid4().hex) for r, roster in matched if roster is not None]

    def _leave_out(self, connection: Connection, asked: list[_Asked]) -> list[_Asked]:
        """Leave out strategies whose breaker is open; one whose time is over gets a single job, to find out."""
        blocked = load_blocked(connection)
        if not blocked:
            return asked
        due = {number for number, is_due in blocked.items() if is_due}
        probing = set(start_probes(connection, due & {number for a in asked for number in a.roster.keys}))
        changed = []
        for a in asked:
            mine = probing & a.roster.keys.keys()
            probing -= mine
            changed.append(replace(a, left_out=frozenset(blocked.keys() & a.roster.keys.keys() - mine)))
        return changed

    def _open(self, connection: Connection, asked: Sequence[_Asked]) -> dict[str, OpenedDispatch]:
        rows = [(a.recorded, a.roster.expected, a.correlation_id) for a in asked]
        opened = open_dispatches(connection, rows, self._patience, self._lifetime)
        newest = max((dispatch.id for dispatch in opened.values()), default=0)
        if newest >= self._partitioned_below:
            self._partitioned_below = ensure_partitions(connection)
        for a in asked:
            if a.left_out and a.correlation_id in opened:
                self._skip(connection, opened[a.correlation_id].id, a)
        return opened

    def _skip(self, connection: Connection, dispatch_id: int, asked: _Asked) -> None:
        land_ends(
            connection,
            dispatch_id,
            [asked.roster.keys[number] for number in sorted(asked.left_out)],
            OutcomeStatus.SKIPPED,
            reason="BreakerOpen",
            text="not executed: the strategy's breaker is open",
            by="producer",
            rules=self._rules,
        )

    def _envelopes(self, dispatch: OpenedDispatch, asked: _Asked) -> list[Envelope]:
        chunks = asked.roster.chunks
        if asked.left_out:
            chunks = self._subscriptions.plan_for(asked.roster.keys.keys() - asked.left_out)
        return [self._envelope(dispatch, asked.recorded, planned) for planned in chunks]

    def _envelope(self, dispatch: OpenedDispatch, recorded: RecordedCandle, planned: PlannedChunk) -> Envelope:
        chunk = Chunk(
            dispatch_id=dispatch.id,
            candle=recorded.candle,
            priority=planned.priority,
            jobs=planned.jobs,
            correlation_id=dispatch.correlation_id,
            created_at=dispatch.created_at,
            deadline=dispatch.deadline,
            expires_at=dispatch.expires_at,
            catalogue_version=self._subscriptions.version,
            previous_open_time=recorded.previous_open_time,
            rewrites=recorded.rewrites,
        )
        hard_limit_s = planned.timeout_s + self._hard_grace_s
        return envelope(chunk, names=planned.names, label=planned.label, hard_limit_s=hard_limit_s)
