"""The republisher: jobs that were committed but not sent, or sent and lost, are sent again. Missing ones only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.broker import Publisher
from app.domain.queues import aged_queues, rooms
from app.maintenance.base import Begin, Report
from app.maintenance.judging import Held, Look, Patience, find_lost
from app.maintenance.lookout import Lookout
from app.maintenance.metrics import Findings, Stall
from app.maintenance.planning import Catalogue, Plan, plan
from app.maintenance.sending import Outbox, Rebuilder
from app.settings import Settings
from app.storage.landing import land_ends
from app.storage.strategies import load_strategies, load_version
from app.storage.unfinished import Unfinished, load_open_breakers, load_overdue, load_progressed, mark_sent

#: Most dispatches looked through in one round.
MOST_DISPATCHES = 500


class Republisher:
    """Sends again what is lost. What it remembers are its own looks at the queues, and what waits for room in them.

    Args:
        begin: opens a transaction.
        publisher: to the queues.
        settings: of the deployment.
        findings: told of what was sent more than once and does not move.
    """

    name = "republisher"

    def __init__(self, begin: Begin, publisher: Publisher, settings: Settings, findings: Findings) -> None:
        self._begin = begin
        self._publisher = publisher
        self._findings = findings
        self._lookout = Lookout(begin, publisher, settings.silence)
        self._outbox = Outbox()
        self._scanned_at: datetime | None = None
        self._rules = settings.rules
        self._silence = settings.silence
        self._limits = settings.dispatch.limits
        self._aged = aged_queues(self._limits)
        self._jobs_in_chunk = settings.dispatch.jobs_in_chunk
        self._hard_grace_s = settings.worker.hard_grace_s
        self._most_sends = settings.maintenance.most_sends
        self._patience = Patience(timedelta(seconds=settings.maintenance.overdue_s), settings.worker.retry_delay_s)
        self.every_s = settings.maintenance.every_s

    def run_once(self, now: datetime) -> Report:
        """Send what waits for room, then look for more, unless that was done within this round."""
        self._outbox.drop_expired(now)
        sent, ended = self._push(now), 0
        if self._is_time_to_scan(now):
            ended = self._scan(now)
            sent += self._push(now)
        return Report.of(has_more=bool(self._outbox.dispatch_ids), messages=sent, ended=ended)

    def _is_time_to_scan(self, now: datetime) -> bool:
        # it runs more often while messages wait for room
        return self._scanned_at is None or (now - self._scanned_at).total_seconds() >= self.every_s / 2

    def _scan(self, now: datetime) -> int:
        """Put what is lost into the outbox or end it; return how many jobs ended."""
        self._scanned_at = now
        seen = self._lookout.look(now)
        overdue = self._load(now) if seen else []
        if seen is None or not overdue:
            return 0
        catalogue = self._load_catalogue()
        plans = self._plan(overdue, catalogue, *seen, now)
        self._note_stalls([each.dispatch for each in plans])
        self._pack(plans, catalogue)
        return sum(self._record_ends(each) for each in plans)

    def _load(self, now: datetime) -> list[Unfinished]:
        with self._begin() as connection:
            but = self._outbox.dispatch_ids
            overdue, silence = self._patience.overdue, self._silence
            return load_overdue(connection, now, overdue, silence, but=but, limit=MOST_DISPATCHES)

    def _load_catalogue(self) -> Catalogue:
        with self._begin() as connection:
            version = load_version(connection)
            strategies = {each.id: each for each in load_strategies(connection)}
            return Catalogue(version, strategies, load_open_breakers(connection))

    def _plan(
        self, overdue: Sequence[Unfinished], catalogue: Catalogue, look: Look, held: Held, now: datetime
    ) -> list[Plan]:
        lost = ((each, find_lost(each, catalogue.queues, look, held, self._patience, now)) for each in overdue)
        return [plan(dispatch, jobs, catalogue, self._most_sends) for dispatch, jobs in lost if jobs]

    def _note_stalls(self, lost: Sequence[Unfinished]) -> None:
        again = [dispatch for dispatch in lost if dispatch.sends > 1]
        if not again:
            return
        with self._begin() as connection:
            progressed = load_progressed(connection, [dispatch.id for dispatch in again])
        for each in again:
            if each.id not in progressed:
                details = {"dispatch": each.id, "sends": each.sends, "missing": len(each.missing)}
                self._findings.add(Stall.DISPATCH, (each.id, each.sends), correlation=each.correlation_id, **details)

    def _pack(self, plans: Sequence[Plan], catalogue: Catalogue) -> None:
        rebuilder = Rebuilder(
            catalogue,
            jobs_in_chunk=self._jobs_in_chunk,
            hard_grace_s=self._hard_grace_s,
            most={queue: limit.messages for queue, limit in self._limits.items()},
        )
        for each in plans:
            self._outbox.put(rebuilder.envelopes(each.dispatch, each.send))

    def _record_ends(self, found: Plan) -> int:
        # a transaction for each: it locks rows that landings want
        for end, jobs in found.ends.items():
            with self._begin() as connection:
                land_ends(
                    connection,
                    found.dispatch.id,
                    [job.key for job in jobs],
                    end.status,
                    reason=end.reason,
                    text=end.text,
                    by="maintenance",
                    rules=self._rules,
                )
        return found.ended

    def _push(self, now: datetime) -> int:
        if not self._outbox.dispatch_ids:
            return 0
        fit = self._outbox.fitting(rooms(self._limits, self._publisher.waiting(self._aged)))
        if fit:
            self._publisher.publish(fit)
        done = self._outbox.take_out(fit)
        if done:
            with self._begin() as connection:
                mark_sent(connection, done, now)
        return len(fit)
