"""The stall detector: chunks past their hard limit, and nodes that report but do not consume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection

from app.domain.decisions import DecisionRules
from app.domain.jobs import Outcome, OutcomeStatus
from app.errors import SlotDiedError
from app.maintenance.base import Begin, Report
from app.maintenance.judging import TaskId
from app.maintenance.metrics import Findings, Stall
from app.storage.breakers import record_crash
from app.storage.engine import driver_of
from app.storage.landing import land
from app.storage.ledger import load_missing
from app.storage.unfinished import count_send, load_asked_revision
from app.storage.watch import WatchedNode, forget_deaf, load_living, mark_canary_sent

STUCK = "ran past its hard limit, and its slot could not be killed in time"


class Control(Protocol):
    """What is done to nodes; see `app.maintenance.fleet.Fleet`."""

    def send_canary(self, node: str, number: str) -> None:
        """Send a canary."""
        ...

    def kill_chunk(self, node: str, task_id: str) -> None:
        """Kill the slot that runs a message."""
        ...

    def shut_down(self, node: str) -> None:
        """Ask a node to end."""
        ...


def wants_canary(node: WatchedNode, now: datetime, every: timedelta) -> bool:
    """Tell whether a node should be sent a canary: the last one was answered, and long enough ago. Pure."""
    if node.canary_sent_at is None:
        return True
    return is_answered(node) and now - node.canary_sent_at >= every


def is_answered(node: WatchedNode) -> bool:
    """Tell whether the node's last canary came through."""
    sent_at, seen_at = node.canary_sent_at, node.canary_seen_at
    return sent_at is None or (seen_at is not None and seen_at >= sent_at)


def seems_deaf(node: WatchedNode, now: datetime, patience: timedelta) -> bool:
    """Tell whether a node has a slot free, nothing waiting for it, and a canary long unanswered. Pure.

    A node whose slots are all at work answers when one is free: that is no deafness.
    """
    is_idle = node.busy < node.slots and len(node.held) <= node.busy
    sent_at = node.canary_sent_at
    return is_idle and sent_at is not None and not is_answered(node) and now - sent_at >= patience


@dataclass
class StallDetector:
    """Finds what stands still, and gets it going."""

    begin: Begin
    control: Control
    findings: Findings
    rules: DecisionRules
    silence: timedelta
    canary: timedelta
    every_s: float
    name: str = "stalls"
    _suspects: dict[str, datetime] = field(default_factory=dict)
    """When a node that seems deaf said so first: once more, a beat later, and it is."""

    def run_once(self, now: datetime) -> Report:
        """Kill what is past its hard limit, end deaf nodes, send canaries."""
        with self.begin() as connection:
            living = load_living(connection, now - self.silence)
        return Report.of(
            chunks=self._kill_overdue(living), deaf=self._end_deaf(living, now), canaries=self._send(living, now)
        )

    def _kill_overdue(self, living: Sequence[WatchedNode]) -> int:
        overdue = [(node.node, task_id) for node in living for task_id in node.overdue]
        self.findings.keep(Stall.CHUNK, overdue)
        fresh = [each for each in overdue if self.findings.add(Stall.CHUNK, each, node=each[0], task=each[1])]
        for node, task_id in fresh:
            self._kill(node, task_id)
        return len(fresh)

    def _kill(self, node: str, task_id: str) -> None:
        """Kill a chunk's slot and see to its jobs: Celery counts the message as done, so the node will not."""
        self.control.kill_chunk(node, task_id)
        known = TaskId.parse(task_id)
        if known is None:
            return
        with self.begin() as connection:
            if known.others:
                # it is lost from now on, and what was sent twice is sent again job by job, under other ids
                count_send(connection, known.dispatch_id)
            else:
                self._record(connection, known, node)

    def _record(self, connection: Connection, known: TaskId, node: str) -> None:
        """Record a job that travelled alone: sent again, the node would refuse its id."""
        if known.strategy_id not in load_missing(connection, known.dispatch_id):
            return
        revision = load_asked_revision(connection, known.dispatch_id, known.strategy_id)
        status, error_class = OutcomeStatus.TIMED_OUT, SlotDiedError.__name__
        outcome = Outcome(known.strategy_id, revision, status, error_class=error_class, error=STUCK)
        driver = driver_of(connection)
        land(driver, known.dispatch_id, node, [outcome], (), self.rules)
        record_crash(driver, known.strategy_id, self.rules.breaker)

    def _end_deaf(self, living: Sequence[WatchedNode], now: datetime) -> int:
        seeming = {node.node: node for node in living if seems_deaf(node, now, self.canary)}
        sure = [node for name, node in seeming.items() if self._suspects.get(name, node.seen_at) < node.seen_at]
        self._suspects = {name: self._suspects.get(name, node.seen_at) for name, node in seeming.items()}
        for node in sure:
            self._end(node)
        return len(sure)

    def _end(self, node: WatchedNode) -> None:
        if node.canary_sent_at is None:
            return
        self.findings.add(Stall.NODE, (node.node, node.canary_sent_at), node=node.node, since=node.canary_sent_at)
        self.control.shut_down(node.node)
        with self.begin() as connection:
            forget_deaf(connection, node.node, node.canary_sent_at)
        del self._suspects[node.node]

    def _send(self, living: Sequence[WatchedNode], now: datetime) -> int:
        wanted = [node.node for node in living if wants_canary(node, now, self.canary)]
        for node in wanted:
            self.control.send_canary(node, f"{now.timestamp():.0f}")
            with self.begin() as connection:
                mark_canary_sent(connection, node, now)
        return len(wanted)
