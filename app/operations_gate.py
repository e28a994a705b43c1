"""The gate as an operator meets it: definitions pass it before they get jobs, or are forced past it, which is kept.

A verification is made by a worker node, where the strategy is to run. When no node takes it, this machine makes it, in
processes of its own: what is added before the first worker starts must not wait for one.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from app.broker import VERIFY_TASK, Publisher
from app.definitions import LoadedDefinition
from app.domain.strategies import Priority, RegisteredStrategy, StrategyDefinition, StrategyStatus
from app.errors import BrokerUnavailableError, RejectedStrategyError
from app.gate.sandbox import CASE_LIMIT_S, START_LIMIT_S, GateError
from app.settings import Settings
from app.storage import strategies as catalogue
from app.storage import verifications
from app.storage.nodes import load_nodes
from app.storage.strategies import Change
from app.storage.verifications import Verification
from app.strategies.fingerprint import take_fingerprint
from app.strategies.registry import Registry
from app.verifying import run_verifications

log = structlog.get_logger()

#: Queue that verifications travel on: they take seconds, and no job of a live candle shall wait for one.
QUEUE = Priority.LOW.value

#: Seconds within which a node must take a verification, and from then on make it.
TAKEN_WITHIN_S, MADE_WITHIN_S = 10.0, START_LIMIT_S + CASE_LIMIT_S

#: Seconds between two looks at the rows.
LOOK_EVERY_S = 0.1

T = TypeVar("T")

#: Told what takes time.
Say = Callable[[str], None]

Transaction = Callable[[], AbstractContextManager[Connection]]
Publishing = Callable[[], AbstractContextManager[Publisher]]


def silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Force:
    """An operator's decision against the gate."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What the gate said about a strategy."""

    verification: Verification
    status: StrategyStatus | None = None
    """Of the strategy in the catalogue afterwards; None when the answer is about code that is not in it."""


class Gate:
    """Has strategies verified, and sees to it that none gets jobs that did not pass.

    Args:
        settings: of the deployment.
        transaction: opens a transaction.
        publishing: hands out the publisher of this process.
    """

    def __init__(self, settings: Settings, transaction: Transaction, publishing: Publishing) -> None:
        self._settings = settings
        self._transaction = transaction
        self._publishing = publishing
        self._registry = Registry(settings.strategies.modules)

    def add(self, loaded: Sequence[LoadedDefinition], force: Force | None = None, say: Say = silent) -> list[Change]:
        """Verify what is new or was not verified yet, and put all into the catalogue in one transaction.

        What does not pass is `rejected`, unless it is forced. Idempotent.

        Raises:
            GateError: the gate itself failed; nothing was added.
        """
        prints = [self.fingerprint(each.definition) for each in loaded]
        with self._transaction() as connection:
            pairs = zip(loaded, prints, strict=True)
            unsure = [pair for pair in pairs if not _is_known(connection, pair[0].definition, pair[1])]
        made = self.verify([(each.definition, taken) for each, taken in unsure], say)
        by_name = {each.strategy: each for each in made}
        with self._transaction() as connection:
            return [
                _admit(connection, each, taken, by_name.get(each.definition.name), force)
                for each, taken in zip(loaded, prints, strict=True)
            ]

    def save(self, loaded: Iterable[LoadedDefinition]) -> list[Change]:
        """Put definitions into the catalogue as they are, not verified. Idempotent."""
        prints = [(each, self.fingerprint(each.definition)) for each in loaded]
        with self._transaction() as connection:
            return [
                catalogue.save_definition(connection, each.definition, each.provenance, taken) for each, taken in prints
            ]

    def verify_again(
        self, strategy: RegisteredStrategy, symbols: Sequence[str], force: Force | None, say: Say = silent
    ) -> Verified:
        """Verify a strategy of the catalogue; one that is active and fails is `rejected`, one that passes is not.

        Raises:
            GateError: the gate itself failed.
        """
        definition = strategy.definition
        taken = self.fingerprint(definition)
        (made,) = self.verify([(with_symbols(definition, symbols), taken)], say)
        with self._transaction() as connection:
            known = catalogue.load_fingerprint(connection, definition.name)
            if known is not None and known != taken:
                return Verified(made)
            before = verifications.load_newest(connection, strategy.id, strategy.revision)
            _judge(connection, made, strategy, force or _forced(before))
            after = catalogue.load_strategy(connection, definition.name).definition.status
        return Verified(made, after)

    def verify(self, wanted: Sequence[tuple[StrategyDefinition, str]], say: Say = silent) -> list[Verification]:
        """Have definitions verified, each with its fingerprint; nothing changes in the catalogue.

        Args:
            wanted: the definitions.
            say: told what takes time.

        Raises:
            GateError: the gate itself failed.
        """
        ids = [uuid.uuid4().hex for _ in wanted]
        with self._transaction() as connection:
            for verification_id, (definition, taken) in zip(ids, wanted, strict=True):
                verifications.save_request(connection, verification_id, definition, taken)
        if ids and self._send(ids):
            say(f"Verifying on the worker nodes: {_names(wanted)}")
            self._wait(ids)
        left = [each.id for each in self._load(ids) if each.finished_at is None]
        if left:
            say(f"Verifying on this machine, a second or two each: {_names(wanted)}")
        run_verifications(self._within, self._settings, left, f"{socket.gethostname()}:{os.getpid()}", again=True)
        made = self._load(ids)
        for each in made:
            if each.verdict is None:
                raise GateError(f"{each.strategy} could not be verified: {(each.report or {}).get('error')}")
        return made

    def fingerprint(self, definition: StrategyDefinition) -> str:
        """Take the fingerprint of a definition's code as it is here.

        Raises:
            ConfigurationError: it cannot be built.
        """
        strategy = self._registry.create(definition.implementation, definition.params, name=definition.name)
        return str(take_fingerprint(strategy, self._settings.strategies.modules))

    def _send(self, ids: Sequence[str]) -> bool:
        """Send verifications to the nodes; tell whether there is one that may take them."""
        with self._transaction() as connection:
            nodes = load_nodes(connection, self._settings.silence)
        if not any(node["is_alive"] and QUEUE in node["queues"] for node in nodes):
            return False
        try:
            with self._publishing() as publisher:
                for each in ids:
                    body = {"verification": each}
                    publisher.send_control(
                        VERIFY_TASK, body, task_id=f"verify.{each}", queue=QUEUE, limit_s=MADE_WITHIN_S
                    )
        except BrokerUnavailableError as error:
            log.warning("verified on this machine", reason=str(error))
            return False
        return True

    def _wait(self, ids: Sequence[str]) -> None:
        """Wait until all are made, or nobody takes one, or whoever took one seems to be gone."""
        moved_at, seen = time.monotonic(), (0, 0)
        while True:
            rows = self._load(ids)
            started = sum(each.started_at is not None for each in rows)
            finished = sum(each.finished_at is not None for each in rows)
            if finished == len(ids):
                return
            if (started, finished) != seen:
                moved_at, seen = time.monotonic(), (started, finished)
            if time.monotonic() - moved_at > (MADE_WITHIN_S if started > finished else TAKEN_WITHIN_S):
                log.warning("verified on this machine", reason="no worker node has made it in time")
                return
            time.sleep(LOOK_EVERY_S)

    def _load(self, ids: Sequence[str]) -> list[Verification]:
        return self._within(lambda connection: verifications.load_verifications(connection, ids))

    def _within(self, action: Callable[[Connection], T]) -> T:
        with self._transaction() as connection:
            return action(connection)


def with_symbols(definition: StrategyDefinition, symbols: Sequence[str]) -> StrategyDefinition:
    """Return a definition that is verified on the stored candles of some symbols; of its own when none are named."""
    if not symbols:
        return definition
    subscription = definition.subscription.model_copy(update={"symbols": tuple(symbols)})
    return definition.model_copy(update={"subscription": subscription})


def require_passed(connection: Connection, strategy: RegisteredStrategy, force: Force | None) -> None:
    """Let a strategy become active only if the gate did not reject its revision, or somebody decides against the gate.

    Raises:
        RejectedStrategyError: it was rejected; says why.
    """
    newest = verifications.load_newest(connection, strategy.id, strategy.revision)
    if newest is None or newest.allows:
        return
    if force is None:
        name = strategy.definition.name
        raise RejectedStrategyError(
            f"strategy {name!r} did not pass the gate: {describe(newest)}. Correct it and add it again, "
            f"or decide against the gate with 'candlefleet strategies resume {name} --force --reason TEXT'"
        )
    verifications.force(connection, newest.id, force.by, force.reason)


def describe(verification: Verification) -> str:
    """Say in one line what the gate found; empty when it found nothing."""
    finding = (verification.report or {}).get("finding")
    if finding is None:
        return ""
    where = f" at {finding['symbol']} {finding['timeframe']} {finding['time']}" if finding["time"] else ""
    return f"{finding['check']} ({finding['reason']}){where}: expected {finding['expected']}, found {finding['found']}"


def tell_rejected(changes: Iterable[Change]) -> list[str]:
    """Say in a line each which of the strategies that were added did not pass, and why."""
    rejected = [each for each in changes if each.strategy.definition.status is StrategyStatus.REJECTED]
    return [
        f"{each.strategy.definition.name} did not pass the gate and gets no jobs: {describe(each.verification)}"
        for each in rejected
        if each.verification is not None
    ]


def _names(wanted: Iterable[tuple[StrategyDefinition, str]]) -> str:
    return ", ".join(definition.name for definition, _ in wanted)


def _is_known(connection: Connection, definition: StrategyDefinition, taken: str) -> bool:
    """Tell whether the gate has let this very code with these very params pass before."""
    if catalogue.load_fingerprint(connection, definition.name) != taken:
        return False
    known = catalogue.load_strategy(connection, definition.name)
    newest = verifications.load_newest(connection, known.id, known.revision)
    # the fingerprint covers the params, not by which name the code was found
    return newest is not None and newest.allows and known.definition.implementation == definition.implementation


def _admit(
    connection: Connection,
    loaded: LoadedDefinition,
    taken: str,
    made: Verification | None,
    force: Force | None,
) -> Change:
    change = catalogue.save_definition(connection, loaded.definition, loaded.provenance, taken)
    if made is None:
        return change
    _judge(connection, made, change.strategy, force, loaded.definition.status)
    after = catalogue.load_strategy(connection, loaded.definition.name)
    return replace(change, strategy=after, verification=made)


def _judge(
    connection: Connection,
    made: Verification,
    strategy: RegisteredStrategy,
    force: Force | None,
    wanted: StrategyStatus = StrategyStatus.ACTIVE,
) -> None:
    """Give a strategy the status that its verification asks for; `wanted` if it is let in after it was rejected."""
    name, status = strategy.definition.name, strategy.definition.status
    verifications.attach(connection, made.id, strategy.id, strategy.revision)
    if made.verdict == "rejected" and force is not None:
        verifications.force(connection, made.id, force.by, force.reason)
    elif made.verdict == "rejected":
        if status is not StrategyStatus.UNLOADED:
            catalogue.set_status(connection, name, StrategyStatus.REJECTED)
        return
    if status is StrategyStatus.REJECTED:
        catalogue.set_status(connection, name, wanted)


def _forced(verification: Verification | None) -> Force | None:
    if verification is None or verification.forced_at is None:
        return None
    return Force(verification.forced_by or "", verification.forced_reason or "")
