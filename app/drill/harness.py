"""What a drill is held on: servers that all faults share, and for each fault a fleet of its own.

A fleet has its own database and key prefix, so that no fault sees what another one left. Its processes are those an
operator starts, with shorter times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import psutil
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from app import embedded
from app.broker import Publisher, create_celery
from app.deployment import Deployment, throwaway
from app.drill.load import MODULE, TIMEFRAME, Entry, Load, steady, write_definitions
from app.errors import BrokerUnavailableError, CandlefleetError
from app.operations import BUILTIN_DEFINITIONS, Operations
from app.processes import Children
from app.settings import Settings, StrategySettings
from app.storage.engine import build_engine
from app.storage.migrate import upgrade

Answer = TypeVar("Answer")

TEMPLATE = "drill_template"
LOOK_EVERY_S = 0.02
#: Seconds that a paced producer takes.
PACED_S = 10.0
#: Soft limit of every innocent job, milliseconds: a hundred times what it takes.
TIMEOUT_MS = 2000
SHORT_LIMITS = "UPDATE strategies SET limits = limits || jsonb_build_object('timeout_ms', CAST(:timeout_ms AS int))"
#: Seconds an event of a drill may take; far above every bound, so that only a hanging drill meets it.
PATIENCE_S = 90.0

#: Shorter times than in service, so that a drill is over in minutes.
HASTE: Mapping[str, str] = {
    "CANDLEFLEET_LOG__JSON_LINES": "true",
    "CANDLEFLEET_STRATEGIES__MODULES": f'["{MODULE}"]',
    "CANDLEFLEET_WORKER__HEARTBEAT_S": "0.5",
    "CANDLEFLEET_WORKER__HARD_GRACE_S": "1",
    "CANDLEFLEET_WORKER__RETRY_BASE_S": "0.1",
    "CANDLEFLEET_WORKER__RETRY_CAP_S": "2",
    "CANDLEFLEET_WORKER__SHUTDOWN_S": "8",
    "CANDLEFLEET_BROKER__VISIBILITY_TIMEOUT_S": "30",
    "CANDLEFLEET_BROKER__RESTORE_INTERVAL_S": "1",
    # a few messages at most: the producer is held back, so that faults find it at work
    "CANDLEFLEET_DISPATCH__QUEUE_LIMIT": "3",
    "CANDLEFLEET_DISPATCH__AHEAD_CHUNKS": "1",
    "CANDLEFLEET_DISPATCH__BATCH_CANDLES": "32",
    # long: an outage must not turn into a decision without its votes, nor into jobs that are out of date
    "CANDLEFLEET_DISPATCH__DEADLINE_S": "600",
    "CANDLEFLEET_DISPATCH__LIFETIME_S": "900",
    "CANDLEFLEET_DECISION__GRACE_S": "600",
    "CANDLEFLEET_MAINTENANCE__EVERY_S": "0.5",
    "CANDLEFLEET_MAINTENANCE__OVERDUE_S": "3",
    "CANDLEFLEET_MAINTENANCE__MOST_SENDS": "50",
}


class DrillError(CandlefleetError):
    """A drill could not be held to its end: the certificate would say nothing."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One structured line of a process."""

    process: str
    event: str
    at: datetime
    fields: Mapping[str, Any]


def await_that(condition: Callable[[], Answer], reason: str, stop: Event, seconds: float = PATIENCE_S) -> Answer:
    """Ask until the answer is truthy, and return it.

    Raises:
        DrillError: it did not become true in time, or the drill was stopped.
    """
    until = time.monotonic() + seconds
    while not (answer := condition()):
        if stop.is_set():
            raise DrillError("stopped before the end")
        if time.monotonic() > until:
            raise DrillError(f"waited {seconds:g} s in vain: {reason}")
        stop.wait(LOOK_EVERY_S)
    return answer


class Ground:
    """The servers of a drill, a migrated database to copy, and the candles.

    Args:
        deployment: with embedded servers of its own.
        servers: these servers, to be stopped and wiped.
        load: the candles.
        stop: ends the drill early.
    """

    def __init__(self, deployment: Deployment, servers: embedded.Servers, load: Load, stop: Event) -> None:
        self.servers = servers
        self.settings = deployment.settings
        self.load = load
        self.stop = stop
        self._count = 0
        self.candles = load.write(self.settings.home / "candles.csv")
        self._prepare_template()

    def fleet(self, entries: Sequence[Entry] = (), environment: Mapping[str, str] | None = None) -> Fleet:
        """Make a fleet on a fresh database with the innocent strategies and these; nothing runs yet.

        Args:
            entries: strategies besides the innocent ones.
            environment: of its processes, over the usual one.
        """
        self._count += 1
        name = f"drill_{self._count}"
        self._create(name, TEMPLATE)
        settings = self._settings_on(name)
        if entries:
            self._register(settings, write_definitions(settings.home / f"{name}.toml", entries))
        return Fleet(self, name, settings, environment or {})

    def server(self, kind: str) -> embedded.KeptServer:
        """Return the server to do something to: ``postgres`` or ``redis``."""
        return {"postgres": self.servers.postgres, "redis": self.servers.redis}[kind]

    def _prepare_template(self) -> None:
        self._create(TEMPLATE)
        settings = self._settings_on(TEMPLATE)
        engine = build_engine(settings.database_dsn, name="candlefleet drill")
        upgrade(engine)
        self._register(settings, BUILTIN_DEFINITIONS)
        self._register(settings, write_definitions(settings.home / "steady.toml", [steady(self.load)]))
        with engine.begin() as connection:  # a chunk's hard limit is that of its most patient job
            connection.execute(text(SHORT_LIMITS), {"timeout_ms": TIMEOUT_MS})
        engine.dispose()

    def _create(self, name: str, template: str | None = None) -> None:
        engine = create_engine(self.settings.database_dsn, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else "")))
        engine.dispose()

    def _settings_on(self, name: str) -> Settings:
        url = make_url(self.settings.database_dsn).set(database=name, drivername="postgresql")
        return self.settings.model_copy(
            update={
                "database_url": SecretStr(url.render_as_string(hide_password=False)),
                "broker": self.settings.broker.model_copy(update={"key_prefix": f"{name}:"}),
                "strategies": StrategySettings(modules=(MODULE,)),
            }
        )

    @staticmethod
    def _register(settings: Settings, path: Path) -> None:
        operations = Operations(settings)
        operations.add_unverified(path)  # the gate would reject what the drill is about
        operations.close()


@contextmanager
def ground(settings: Settings, load: Load, stop: Event) -> Iterator[Ground]:
    """Hand out ground for a drill; nothing of it remains."""
    with throwaway(settings) as deployment, embedded.start(deployment.settings.home) as servers:
        yield Ground(deployment, servers, load, stop)


class Fleet:
    """A producer, two worker nodes of one slot each and maintenance, on a database and queues of their own."""

    workers = ("worker-1", "worker-2")

    def __init__(self, ground: Ground, name: str, settings: Settings, environment: Mapping[str, str]) -> None:
        self.ground = ground
        self.stop = ground.stop
        self.settings = settings
        self.engine: Engine = build_engine(settings.database_dsn, name="candlefleet drill")
        self.publisher = Publisher(create_celery(settings), settings.dispatch.room)
        self._environment = {
            **HASTE,
            # what a killed worker leaves of its shared memory goes with the rest
            "TMPDIR": str(settings.home),
            "CANDLEFLEET_DATABASE_URL": settings.database_dsn.replace("postgresql+psycopg://", "postgresql://", 1),
            "CANDLEFLEET_BROKER_URL": settings.broker_dsn,
            "CANDLEFLEET_BROKER__KEY_PREFIX": settings.broker.key_prefix,
            **environment,
        }
        self.logs = settings.home / "logs" / name
        self.children = Children(self.logs, self._environment)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes at once: the drill of this fleet is over."""
        for name in ("producer", "maintenance", *self.workers):
            self.children.discard(name)
        self.publisher.close()
        self.engine.dispose()

    def start(self) -> None:
        """Start maintenance and the worker nodes, and wait until these consume."""
        self.children.start("maintenance", "app.cli.main", "maintenance")
        for name in self.workers:
            self.start_worker(name)
        self.await_nodes(len(self.workers))

    def start_worker(self, name: str) -> None:
        """Start a worker node as `candlefleet worker` does, but for the seconds in which nodes look for each other."""
        command = ("-A", "workers.main", "--quiet", "worker", "--without-mingle", "--without-gossip")
        self.children.start(name, "celery", *command, "-c", "1", "-n", f"{name}@drill")

    def start_producer(self, *options: str) -> None:
        """Start a producer on the candles of the drill, from their beginning."""
        command = ("producer", "--feed", f"replay:{self.candles}", "--json", *options)
        self.children.start("producer", "app.cli.main", *command)

    def start_paced_producer(self) -> None:
        """Start a producer that takes a known time, however fast the machine is: a fault has several steps."""
        market_s = self.ground.load.per_symbol * TIMEFRAME.duration.total_seconds()
        self.start_producer("--speed", f"{market_s / PACED_S:g}")

    @property
    def candles(self) -> str:
        """Path of the candles."""
        return str(self.ground.candles)

    def await_nodes(self, count: int) -> None:
        """Wait until so many nodes have said that they live.

        Raises:
            DrillError: they did not.
        """
        self.wait(lambda: len(self.node_names()) >= count or self._unexpected_end(), "worker nodes consume")
        if self._unexpected_end():
            name = self._unexpected_end()
            raise DrillError(f"{name} ended; the end of its log:\n{self.children.tail(name)}")

    def node_names(self) -> set[str]:
        """Return the nodes in the ledger."""
        return {row[0].partition("@")[0] for row in self.rows("SELECT node FROM nodes")}

    def wait(self, condition: Callable[[], Answer], reason: str, seconds: float = PATIENCE_S) -> Answer:
        """Wait for an event; a server that is away is no answer.

        Raises:
            DrillError: it did not come.
        """

        def ask() -> Answer | None:
            try:
                return condition()
            except (DBAPIError, BrokerUnavailableError):
                return None

        answer = await_that(ask, reason, self.stop, seconds)
        assert answer is not None  # noqa: S101 - await_that returns truthy answers only
        return answer

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Ask the ledger."""
        with self.engine.connect() as connection:
            return list(connection.execute(text(query), values))

    def landed(self) -> int:
        """Return how many outcomes there are."""
        return int(self.rows("SELECT count(*) FROM outcomes")[0][0])

    def unfinished(self) -> set[int]:
        """Return the dispatches that still miss outcomes."""
        return {row[0] for row in self.rows("SELECT id FROM dispatches WHERE state <> 'complete'")}

    def await_work(self, share: float) -> None:
        """Wait until that share of the candles has been dispatched and there is work on the queues."""
        candles = round(self.ground.load.candles * share)

        def is_under_way() -> bool:
            count, landed = self.rows("SELECT count(*), coalesce(sum(landed), 0) FROM dispatches")[0]
            if landed and self.children.exit_code("producer") == 0 and not self.unfinished():
                raise DrillError("the work was over before the fault struck: give it more candles")
            return bool(count >= candles and landed and sum(self.publisher.depths().values()))

        self.wait(is_under_way, f"{share:.0%} of the candles are under way")

    def await_end(self) -> None:
        """Wait until the producer has ended well and nothing is missing.

        Raises:
            DrillError: the producer failed, or outcomes did not land.
        """
        self.wait(lambda: self.children.exit_code("producer") is not None, "the producer ends")
        if self.children.exit_code("producer"):
            raise DrillError(f"the producer failed; the end of its log:\n{self.children.tail('producer')}")
        try:
            self.wait(lambda: not self.unfinished(), "everything lands")
        except DrillError as error:
            raise DrillError(f"{error}; {len(self.unfinished())} dispatches are unfinished") from error

    def is_idle(self) -> bool:
        """Tell whether no message waits and none is held by a worker."""
        return not (sum(self.publisher.depths().values()) or self.held())

    def held(self) -> int:
        """Return how many messages workers hold, as Redis knows it."""
        with redis.Redis.from_url(self.settings.broker_dsn) as client:
            return int(client.hlen(f"{self.settings.broker.key_prefix}unacked"))

    @property
    def shutdown_s(self) -> float:
        """Seconds a worker node may take to end."""
        return float(HASTE["CANDLEFLEET_WORKER__SHUTDOWN_S"])

    def slot_pids(self, worker: str) -> list[int]:
        """Return the process ids of a node's slots."""
        return [child.pid for child in psutil.Process(self.children.pid(worker)).children()]

    def log_lines(self, event: str) -> list[LogLine]:
        """Return the lines of the worker nodes whose event starts like this."""
        return [line for name in self.workers for line in self._read(name) if line.event.startswith(event)]

    def _read(self, process: str) -> Iterator[LogLine]:
        path = self.children.log(process)
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            try:
                fields = json.loads(line)
                yield LogLine(process, fields["event"], datetime.fromisoformat(fields["timestamp"]), fields)
            except (ValueError, TypeError, KeyError):  # what Celery prints by itself
                continue

    def _unexpected_end(self) -> str:
        return next((name for name in self.children.dead() if name != "producer"), "")
