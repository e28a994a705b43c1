"""What a benchmark stands on: servers of its own, the databases of all contenders, and their processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import psutil
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text

from app.benchmark.catalogue import Roster, register
from app.benchmark.celery_app import QUEUE
from app.benchmark.celery_baseline import CeleryContender
from app.benchmark.fleet import FleetContender
from app.benchmark.limit import LimitContender
from app.benchmark.measuring import Watcher
from app.benchmark.tables import connect, create_tables
from app.benchmark.workloads import MODULE, Workload
from app.deployment import Deployment, throwaway
from app.processes import Children
from app.settings import Settings, StrategySettings
from app.storage.engine import open_engine
from app.storage.migrate import upgrade

#: Slots of every contender: what the project's numbers are stated for.
SLOTS = 2
#: Symbols of a contender that lands hundreds of jobs in a second: its cost a job does not depend on them.
FEW_SYMBOLS = 4
MANY_SYMBOLS = 500

#: Database with the schema, the strategies and the tables of all contenders; copied for each.
TEMPLATE = "bench_template"
#: Database of the contenders that are not this system.
BASELINES = "bench_baselines"
#: Chunks a producer may hold: maintenance, which would send what is left to it, does not run here.
HELD_CHUNKS = 1_000_000

_NODES = text("SELECT count(*) FROM nodes")


@dataclass(frozen=True, slots=True)
class Node:
    """A worker node that runs, and the settings of a producer for it."""

    settings: Settings
    watcher: Watcher
    pid: int

    @property
    def slots(self) -> list[psutil.Process]:
        """The pool processes."""
        return psutil.Process(self.pid).children()


class Ground:
    """Hands out contenders. Each node has a database and queues of its own, and is all that its producer knows of.

    Args:
        deployment: with servers of its own.
        workloads: whose strategies are in every catalogue.
        stop: ends measurements early.
    """

    def __init__(self, deployment: Deployment, workloads: Iterable[Workload], stop: Event) -> None:
        self.stop = stop
        strategies = StrategySettings(modules=(MODULE,))
        self.settings = deployment.settings.model_copy(update={"strategies": strategies})
        self.roster = self._prepare_template(workloads)
        self.baselines = self._copy(BASELINES)

    @contextmanager
    def node(
        self, name: str, slots: int = SLOTS, environment: Mapping[str, str] | None = None, queues: str = ""
    ) -> Iterator[Node]:
        """Run a worker node, of all live queues unless some are named."""
        with self._node_on(self._copy(f"bench_{name}"), name, slots, environment, queues) as node:
            yield node

    @contextmanager
    def beside(self, node: Node, name: str, slots: int = SLOTS, queues: str = "") -> Iterator[Node]:
        """Run another node for the deployment of one that runs."""
        with self._node_on(node.settings, name, slots, None, queues) as another:
            yield another

    @contextmanager
    def _node_on(
        self, settings: Settings, name: str, slots: int, environment: Mapping[str, str] | None, queues: str
    ) -> Iterator[Node]:
        with (
            self._children(settings, environment) as children,
            open_engine(settings.database_dsn, name="bench") as engine,
        ):
            before = _count_nodes(engine)
            options = ("--concurrency", str(slots), "--name", f"{name}@bench")
            chosen = ("--queues", queues) if queues else ()
            children.start(name, "app.cli.main", "worker", *options, *chosen)
            watcher = Watcher(children, self.stop)
            watcher.await_count(lambda: _count_nodes(engine), before + 1)
            yield Node(settings, watcher, children.pid(name))

    @contextmanager
    def fleet(self, node: Node, name: str, *, chunking: bool = True) -> Iterator[FleetContender]:
        """Run a producer for a node."""
        dispatch = node.settings.dispatch.model_copy(update={"held_chunks": HELD_CHUNKS})
        if not chunking:
            dispatch = dispatch.model_copy(update={"chunking": False})
        settings = node.settings.model_copy(update={"dispatch": dispatch})
        with FleetContender(name, settings, node.watcher, MANY_SYMBOLS if chunking else FEW_SYMBOLS) as contender:
            yield contender

    @contextmanager
    def unchunked(self, name: str) -> Iterator[FleetContender]:
        """Run a node and its producer with chunking off."""
        with (
            self.node(name, environment={"CANDLEFLEET_DISPATCH__CHUNKING": "off"}) as node,
            self.fleet(node, name, chunking=False) as contender,
        ):
            yield contender

    @contextmanager
    def celery(self) -> Iterator[CeleryContender]:
        """Run plain Celery, with a worker of its own."""
        with self._children(self.baselines) as children:
            command = ("-A", "app.benchmark.celery_worker", "--quiet", "worker", "-Q", QUEUE, "-c", str(SLOTS))
            children.start("celery", "celery", *command, "-n", "celery@bench")
            contender = CeleryContender(self.baselines, self.roster, Watcher(children, self.stop), FEW_SYMBOLS)
            try:
                yield contender
            finally:
                contender.close()

    @contextmanager
    def limit(self) -> Iterator[LimitContender]:
        """Run the plain processes."""
        contender = LimitContender(self.baselines, self.roster, SLOTS)
        try:
            yield contender
        finally:
            contender.close()

    @contextmanager
    def producer(self, node: Node, feed: str) -> Iterator[Children]:
        """Run ``producer``, a process of its own, until it is left."""
        with self._children(node.settings) as children:
            children.start("producer", "app.cli.main", "producer", "--feed", feed)
            yield children

    def _prepare_template(self, workloads: Iterable[Workload]) -> Roster:
        self._create(TEMPLATE)
        settings = self._on(TEMPLATE)
        with connect(settings.database_dsn, "bench") as connection:
            with open_engine(settings.database_dsn, name="bench") as engine:
                upgrade(engine)
                roster = register(engine, workloads)
            create_tables(connection)
        return roster

    def _copy(self, name: str) -> Settings:
        self._create(name, TEMPLATE)
        return self._on(name)

    def _create(self, name: str, template: str | None = None) -> None:
        with connect(self.settings.database_dsn, "bench") as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template or "template0")
                )
            )

    def _on(self, name: str) -> Settings:
        url = make_url(self.settings.database_dsn).set(database=name, drivername="postgresql")
        return self.settings.model_copy(
            update={
                "database_url": SecretStr(url.render_as_string(hide_password=False)),
                "broker": self.settings.broker.model_copy(update={"key_prefix": f"{name}:"}),
            }
        )

    def _children(self, settings: Settings, environment: Mapping[str, str] | None = None) -> Children:
        own = {
            "CANDLEFLEET_DATABASE_URL": settings.database_dsn.replace("postgresql+psycopg://", "postgresql://", 1),
            "CANDLEFLEET_BROKER_URL": settings.broker_dsn,
            "CANDLEFLEET_BROKER__KEY_PREFIX": settings.broker.key_prefix,
            "CANDLEFLEET_STRATEGIES__MODULES": f'["{MODULE}"]',
        }
        return Children(self.settings.home / "logs", {**own, **(environment or {})})


def _count_nodes(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(_NODES).scalar_one())


@contextmanager
def ground(settings: Settings, workloads: Iterable[Workload], stop: Event) -> Iterator[Ground]:
    """Hand out ground for a benchmark; nothing of it remains."""
    with throwaway(settings) as deployment:
        yield Ground(deployment, workloads, stop)
