"""Dispatch: candles and their dispatches in one transaction, then their chunks, ready to publish."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import Connection, Engine

from app.broker import QUEUES, Envelope, envelope
from app.domain.candles import Candle
from app.domain.decisions import DecisionRules
from app.domain.jobs import Chunk, OutcomeStatus
from app.producer.knowledge import Knowledge, StoredPlans
from app.producer.planner import Plan, PlannedChunk, Planner
from app.producer.subscriptions import Roster, Subscriptions
from app.producer.throttling import Spacer
from app.settings import DispatchSettings
from app.storage.breakers import load_blocked, start_probes
from app.storage.candles import RecordedCandle, record_candles
from app.storage.engine import translated
from app.storage.landing import land_ends
from app.storage.ledger import Asked, OpenedDispatch, mark_published, open_dispatches
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
    slots: int = 1
    """Slots of the fleet, among which they are shared out."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A recorded candle and who answers it."""

    recorded: RecordedCandle
    roster: Roster
    correlation_id: str
    plan: Plan
    left_out: frozenset[int] = frozenset()
    """Strategies whose breaker is open: expected, but not sent a job."""


class Dispatcher:
    """Writes candles with their dispatches and builds the chunks. Knows nothing of feeds and queues.

    Args:
        engine: of Postgres.
        source: where the candles come from.
        settings: how jobs share chunks, and how long they may take.
        hard_grace_s: seconds a chunk may run past its longest soft limit.
        rules: how a dispatch is decided that nobody can be asked for.
        silence: time without a sign of life after which a node counts as gone.
    """

    def __init__(
        self,
        engine: Engine,
        source: str,
        *,
        settings: DispatchSettings,
        hard_grace_s: float,
        rules: DecisionRules,
        silence: timedelta,
    ) -> None:
        self._engine = engine
        self._source = source
        self._patience = timedelta(seconds=settings.deadline_s)
        self._lifetime = timedelta(seconds=settings.lifetime_s)
        self._hard_grace_s = hard_grace_s
        self._rules = rules
        self._planner = Planner(settings)
        self._knowledge = Knowledge(self._planner, silence)
        self._spacer = Spacer()
        self._subscriptions = Subscriptions(-1, [], self._planner)
        self._plans = StoredPlans()
        self._partitioned_below = 0

    def write(self, candles: Sequence[Candle]) -> Written:
        """Record candles and open their dispatches, in one transaction. A candle seen before opens nothing.

        Args:
            candles: no (symbol, timeframe, open_time) twice; oldest first within a series.

        Raises:
            StorageUnavailableError: Postgres went away; nothing or everything was written, write them again.
        """
        self._plans.begin()
        with translated(), self._engine.begin() as connection:
            self._refresh(connection)
            recorded = record_candles(connection, candles, self._source)
            asked = self._leave_out(connection, self._ask(recorded))
            opened = self._open(connection, asked)
        self._plans.confirm()
        ready = [(opened[a.correlation_id], a) for a in asked if a.correlation_id in opened]
        self._count(a for _, a in ready)
        envelopes = [each for dispatch, a in ready for each in self._envelopes(dispatch, a)]
        # a stable sort: urgent first, candles in order within a priority
        envelopes.sort(key=lambda each: QUEUES.index(each.chunk.priority.value))
        ids = tuple(dispatch.id for dispatch, _ in ready)
        return Written(len(recorded), ids, tuple(envelopes), self._planner.slots)

    @property
    def is_learning(self) -> bool:
        """Whether some strategy that is asked is new, and was not for long."""
        return self._knowledge.is_learning

    def throttled(self) -> dict[str, str]:
        """Return the strategies that are throttled, by name, and why."""
        held, active = self._planner.throttled, list(self._subscriptions.active)
        return {each.definition.name: held[each.id].reason for each in active if each.id in held}

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
            self._subscriptions = Subscriptions(version, load_strategies(connection), self._planner)
            self._knowledge.hurry()
        if self._knowledge.refresh(connection, self._subscriptions.active):
            self._subscriptions.plan_again()

    def _ask(self, recorded: Sequence[RecordedCandle]) -> list[_Asked]:
        matched = [(r, self._subscriptions.match(r.candle.symbol, r.candle.timeframe)) for r in recorded]
        return [_Asked(r, roster, uuid.uuid4().hex, roster.plan) for r, roster in matched if roster is not None]

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
            left_out = frozenset(blocked.keys() & a.roster.keys.keys() - mine)
            if left_out or mine:
                plan = self._subscriptions.plan_for(a.roster, left_out, mine)
                changed.append(replace(a, left_out=left_out, plan=plan))
            else:
                changed.append(a)
        return changed

    def _open(self, connection: Connection, asked: Sequence[_Asked]) -> dict[str, OpenedDispatch]:
        rows = [
            Asked(a.recorded, a.roster.expected, a.correlation_id, self._plans.store(connection, a.plan)) for a in asked
        ]
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

    def _count(self, asked: Iterable[_Asked]) -> None:
        for ids, dispatches in Counter(tuple(a.roster.keys) for a in asked).items():
            self._planner.count(ids, dispatches)

    def _envelopes(self, dispatch: OpenedDispatch, asked: _Asked) -> list[Envelope]:
        return [self._envelope(dispatch, asked, planned) for planned in asked.plan.chunks]

    def _envelope(self, dispatch: OpenedDispatch, asked: _Asked, planned: PlannedChunk) -> Envelope:
        recorded = asked.recorded
        chunk = Chunk.model_construct(
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
            attempt=0,
            expected=asked.roster.expected.count,
        )
        return envelope(
            chunk,
            names=planned.names,
            label=planned.label,
            hard_limit_s=planned.timeout_s + self._hard_grace_s,
            countdown_s=self._delay_s(planned),
            alone=planned.is_alone,
            cost_ms=planned.cost_ms,
        )

    def _delay_s(self, planned: PlannedChunk) -> float | None:
        if not planned.spacing_s:
            return None
        return self._spacer.delay_s(planned.jobs[0].strategy_id, planned.spacing_s, time.monotonic()) or None
