"""What an operator can do and ask. The command line and the API are thin over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine

from app.broker import QUEUES, Publisher, create_celery
from app.definitions import LoadedDefinition, Provenance, load_definitions
from app.domain.breakers import BreakerState
from app.domain.queues import Waiting
from app.domain.strategies import RegisteredStrategy, StrategyStatus
from app.errors import BrokerUnavailableError, ConfigurationError
from app.operations_gate import Force, Gate, Say, Verified, require_passed, silent, with_symbols
from app.operations_pressure import describe_queues
from app.operations_queues import Queues
from app.settings import Settings
from app.storage import breakers, listings
from app.storage import strategies as catalogue
from app.storage.engine import build_engine, translated
from app.storage.migrate import require_current
from app.storage.nodes import load_nodes
from app.storage.producers import load_producers
from app.strategies.registry import Registry

#: The definitions that ship with Candlefleet.
BUILTIN_DEFINITIONS = Path(__file__).resolve().parents[1] / "config" / "strategies.toml"


class Operations:
    """One operator's view of a deployment; give it back with `close`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine: Engine = build_engine(
            settings.database_dsn, name="candlefleet operations", pool_size=settings.database_pool
        )
        celery = create_celery(settings)
        self.queues = Queues(celery)
        self._publisher, self._publishes = Publisher(celery, settings.dispatch.room), Lock()
        self._gate = Gate(settings, self.changing, self.publishing)
        self._is_current = False

    def close(self) -> None:
        """Give connections back. Idempotent."""
        self._publisher.close()
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection for reading.

        Raises:
            StorageUnavailableError: Postgres is away.
            ConfigurationError: its schema is not the newest.
        """
        self._require_current()
        with translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def reading_once(self) -> Iterator[Connection]:
        """Open a connection on which every statement sees the same moment, that of the first; else as `reading`."""
        with self.reading() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """Open a transaction.

        Raises:
            StorageUnavailableError: Postgres is away.
            ConfigurationError: its schema is not the newest.
        """
        self._require_current()
        with translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def publishing(self) -> Iterator[Publisher]:
        """Hand out the publisher, to one thread at a time; its connection is kept for the next one."""
        with self._publishes:
            yield self._publisher

    def read_definitions(self, path: Path) -> tuple[LoadedDefinition, ...]:
        """Read and validate a definition file; nothing is stored.

        Raises:
            ConfigurationError: everything that is wrong with it.
        """
        registry = Registry(self.settings.strategies.modules)
        loaded = load_definitions(path, registry, window=self.settings.worker.window)
        return tuple(self._with_defaults(item) for item in loaded)

    def add_definitions(self, path: Path, force: Force | None = None, say: Say = silent) -> list[catalogue.Change]:
        """Load a definition file into the catalogue, all of it or nothing, through the gate. Idempotent.

        Args:
            path: of the file.
            force: decision to enable what does not pass; without it that is `rejected`.
            say: told what takes time.

        Raises:
            ConfigurationError: everything that is wrong with it.
            GateError: the gate itself failed.
        """
        return self._gate.add(self.read_definitions(path), force, say)

    def add_unverified(self, path: Path) -> list[catalogue.Change]:
        """Load a definition file into the catalogue without the gate: a deployment that is thrown away. Idempotent.

        Raises:
            ConfigurationError: everything that is wrong with it.
        """
        return self._gate.save(self.read_definitions(path))

    def describe_strategy(self, implementation: str) -> tuple[str, ...]:
        """Return what whoever runs an implementation should know, or why it cannot be loaded on this machine."""
        try:
            return Registry(self.settings.strategies.modules).resolve(implementation).notes
        except ConfigurationError as error:
            return (f"cannot be loaded here: {error}",)

    def add_first_definitions(self) -> list[catalogue.Change]:
        """Load the definitions that a new deployment begins with: the file of the settings, or those that ship.

        Those that ship have passed the gate in the tests of their release.

        Raises:
            ConfigurationError: everything that is wrong with the file.
            GateError: the gate itself failed.
        """
        own = self.settings.strategies.file
        return self.add_definitions(own) if own else self.add_unverified(BUILTIN_DEFINITIONS)

    def verify_file(self, path: Path, symbols: Sequence[str] = (), say: Say = silent) -> list[Verified]:
        """Have every definition of a file verified; nothing is added.

        Args:
            path: of the file.
            symbols: patterns of the stored series to use; those of the definitions by default.
            say: told what takes time.

        Raises:
            ConfigurationError: everything that is wrong with it.
            GateError: the gate itself failed.
        """
        definitions = [with_symbols(each.definition, symbols) for each in self.read_definitions(path)]
        made = self._gate.verify([(each, self._gate.fingerprint(each)) for each in definitions], say)
        return [Verified(each) for each in made]

    def verify_strategy(
        self, name: str, symbols: Sequence[str] = (), force: Force | None = None, say: Say = silent
    ) -> Verified:
        """Have a strategy of the catalogue verified: one that fails is rejected, a rejected one that passes is active.

        Args:
            name: of it.
            symbols: as in `verify_file`.
            force: decision to leave it active although it fails.
            say: told what takes time.

        Raises:
            UnknownStrategyError: no strategy is called so.
            ConfigurationError: it cannot be built here.
            GateError: the gate itself failed.
        """
        with self.reading() as connection:
            strategy = catalogue.load_strategy(connection, name)
        return self._gate.verify_again(strategy, symbols, force, say)

    def set_status(self, name: str, status: StrategyStatus, force: Force | None = None) -> RegisteredStrategy:
        """Pause, resume or unload a strategy; takes effect with the next candle. Idempotent.

        A strategy that becomes active gets a clean slate: its breaker closes, its crashes are forgotten, and every
        slot builds it anew.

        Raises:
            UnknownStrategyError: no strategy is called so.
            RejectedStrategyError: it was to become active, the gate rejected it, and nobody forced it.
        """
        with self.changing() as connection:
            if status is StrategyStatus.ACTIVE:
                require_passed(connection, catalogue.load_strategy(connection, name), force)
            strategy = catalogue.set_status(connection, name, status)
            if status is StrategyStatus.ACTIVE:
                breakers.close_breaker(connection, strategy.id)
                catalogue.bump_version(connection)
            return strategy

    def status(self) -> dict[str, Any]:
        """Return the figures of the whole: queues, nodes, jobs, latency. Plain JSON values and datetimes."""
        with self.reading() as connection:
            nodes = load_nodes(connection, self.settings.silence)
            open_dispatches, missing = listings.count_open(connection)
            outcomes = listings.count_outcomes(connection)
            figures: dict[str, Any] = {
                **listings.count_all(connection),
                "open_dispatches": open_dispatches,
                "jobs": _count_jobs(outcomes, missing),
                "outcomes": outcomes,
                "processing_ms": listings.load_processing(connection),
                "latency_ms": listings.load_latency(connection),
                "nodes": nodes,
                "producers": load_producers(connection, self.settings.silence),
                "breakers": [row for row in breakers.list_breakers(connection) if row["state"] != BreakerState.CLOSED],
                "quarantined": listings.list_names(connection, StrategyStatus.QUARANTINED),
            }
        alive = [node for node in nodes if node["is_alive"]]
        waiting = self._look()
        return {
            **figures,
            "queues": {queue: waiting[queue].depth if waiting else None for queue in QUEUES},
            "pressure": describe_queues(self.settings.dispatch.limits, waiting, figures["producers"]),
            "active_workers": len(alive),
            "slots": sum(node["slots"] for node in alive),
            "events": {what: sum(node[f"events_{what}"] for node in nodes) for what in ("sent", "sampled", "dropped")},
        }

    def _require_current(self) -> None:
        # reading the migrations takes longer than most questions: a schema that was current stays so
        if not self._is_current:
            require_current(self.engine)
            self._is_current = True

    def _with_defaults(self, loaded: LoadedDefinition) -> LoadedDefinition:
        """Return the definition with this deployment's defaults for what its file leaves open."""
        definition, stated = loaded.definition, loaded.provenance
        changes: dict[str, Any] = {}
        if stated["priority"] is Provenance.DEFAULT:
            changes["priority"] = self.settings.dispatch.default_priority
        if stated["limits.timeout_ms"] is Provenance.DEFAULT:
            timeout_ms = self.settings.worker.timeout_ms
            changes["limits"] = definition.limits.model_copy(update={"timeout_ms": timeout_ms})
        return replace(loaded, definition=definition.model_copy(update=changes))

    def _look(self) -> dict[str, Waiting]:
        """Return what waits by queue; nothing when the broker is away, which is itself an answer."""
        try:
            with self.publishing() as publisher:
                return publisher.waiting()
        except BrokerUnavailableError:
            return {}


def _count_jobs(outcomes: dict[str, int], missing: int) -> dict[str, int]:
    ended = sum(outcomes.values())
    succeeded = outcomes.get("succeeded", 0)
    return {"total": ended + missing, "succeeded": succeeded, "failed": ended - succeeded, "waiting": missing}
