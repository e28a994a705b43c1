"""The demonstration: a whole deployment on one machine, candles in, decisions out, and what came of it.

It works on servers of its own, under ``<home>/demo``, so that it never mixes with real data; with servers
named by the environment, in a database and under a key prefix of its own.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from app.broker import Publisher, create_celery
from app.deployment import Deployment
from app.domain.candles import Timeframe
from app.errors import CandlefleetError, ConfigurationError
from app.feeds.base import FeedReport
from app.feeds.generated import GeneratedFeed
from app.feeds.replay import ReplayFeed
from app.operations import Operations
from app.operations_gate import tell_rejected
from app.processes import Children
from app.producer.build import build_producer
from app.producer.service import Producer, ProducerReport
from app.settings import Settings
from app.storage import listings
from app.storage.engine import build_engine
from app.storage.migrate import upgrade
from app.storage.position_listings import count_positions

#: What is generated when no data is given.
SYMBOLS = ("ALPHA-USD", "BETA-USD", "GAMMA-USD")
CANDLES = 2000
SEED = 7
START = datetime(2024, 1, 1, tzinfo=UTC)

#: The demonstration's own database and key prefix on servers named by the environment.
DATABASE = "candlefleet_demo"
KEY_PREFIX = "candlefleet-demo:"

#: Seconds without a single outcome landing after which the demonstration gives up.
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.1


class DemonstrationError(CandlefleetError):
    """The demonstration did not come to its end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to demonstrate."""

    data: Path | None = None
    workers: int = 1
    slots: int = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    share: float
    """0 to 1."""
    candles: int
    landed: int
    expected: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of it."""

    source: str
    candles: int
    dispatches: int
    outcomes: dict[str, int]
    decisions: dict[str, int]
    elapsed_s: float
    latency_ms: dict[str, float | None]
    rejected: dict[str, int]
    gaps: int
    unreadable: list[str]
    positions: dict[str, Any]
    """``open``, ``closed``, ``profit`` and ``fees`` of all strategies."""
    signals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def landed(self) -> int:
        """Outcomes of any status."""
        return sum(self.outcomes.values())

    @property
    def outcomes_per_s(self) -> float:
        """Outcomes landed per second, from the first candle to the last outcome."""
        return self.landed / self.elapsed_s

    def document(self) -> dict[str, Any]:
        """Build the JSON document of ``candlefleet demo --json``."""
        return {
            "source": self.source,
            "candles": self.candles,
            "dispatches": self.dispatches,
            "outcomes": self.outcomes,
            "decisions": sum(self.decisions.values()),
            "decisions_by_action": self.decisions,
            "elapsed_s": round(self.elapsed_s, 3),
            "outcomes_per_s": round(self.outcomes_per_s, 1),
            "latency_ms": self.latency_ms,
            "rejected": self.rejected,
            "gaps": self.gaps,
            "unreadable": self.unreadable,
            "positions": self.positions,
            "signals": self.signals,
        }


def demo_settings(settings: Settings) -> Settings:
    """Return settings under which the demonstration touches nobody's data."""
    changes: dict[str, Any] = {"home": settings.home / "demo"}
    if settings.broker_url is not None:
        changes["broker"] = settings.broker.model_copy(update={"key_prefix": KEY_PREFIX})
    if settings.database_url is not None:
        url = make_url(settings.database_dsn).set(database=DATABASE, drivername="postgresql")
        changes["database_url"] = SecretStr(url.render_as_string(hide_password=False))
    return settings.model_copy(update=changes)


def demonstrate(
    settings: Settings, plan: Plan, stop: Event, say: Callable[[str], None], on_progress: Callable[[Progress], None]
) -> Summary:
    """Run the demonstration to its end.

    Args:
        settings: as loaded.
        plan: what to demonstrate.
        stop: ends it early.
        say: told what happens, a line at a time.
        on_progress: told how far it is, several times a second.

    Raises:
        DemonstrationError: stopped early, a worker died, or outcomes stopped landing.
        ConfigurationError: another demonstration runs here, or a server cannot be used.
        FeedError: nothing in the given data can be read.
    """
    own = demo_settings(settings)
    own.home.mkdir(parents=True, exist_ok=True)
    with _alone(own.home):
        say("Starting PostgreSQL and Redis")
        if settings.database_url is not None:
            _recreate_database(settings.database_dsn)
        with Deployment(own) as deployment:
            say(deployment.describe())
            return _on(deployment, plan, stop, say, on_progress)


def _on(
    deployment: Deployment,
    plan: Plan,
    stop: Event,
    say: Callable[[str], None],
    on_progress: Callable[[Progress], None],
) -> Summary:
    settings = deployment.settings
    engine = build_engine(settings.database_dsn, name="candlefleet demo")
    publisher = Publisher(create_celery(settings), settings.dispatch.room)
    operations = Operations(settings)
    environment = {**deployment.environment, "CANDLEFLEET_BROKER__KEY_PREFIX": settings.broker.key_prefix}
    try:
        _start_afresh(engine, publisher)
        definitions = operations.add_first_definitions()
        for line in tell_rejected(definitions):
            say(line)
        say(f"{len(definitions)} strategies, {plan.workers} worker(s) with {plan.slots} slots each")
        with Children(settings.home / "logs", environment) as children:
            _start_workers(children, plan, settings)
            children.start("maintenance", "app.cli.main", "maintenance")
            _await_workers(operations, children, plan.workers, stop)
            feed = _build_feed(plan, stop)
            say(f"Replaying {feed.source}")
            producer = build_producer(settings, engine, publisher, feed)
            started = time.perf_counter()
            _run(producer, feed, engine, children, stop, on_progress)
            return _summarise(engine, feed.source, producer.report, feed.report, time.perf_counter() - started)
    finally:
        operations.close()
        publisher.close()
        engine.dispose()


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(f"another demonstration runs in {home}: wait for it, or use --home") from error
        yield


def _recreate_database(dsn: str) -> None:
    engine = create_engine(dsn, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {DATABASE}"))
    except DBAPIError as error:
        raise ConfigurationError(
            f"the demonstration needs a database of its own, {DATABASE}, and cannot create it: {error.orig}. "
            "Unset CANDLEFLEET_DATABASE_URL to use an embedded server"
        ) from error
    finally:
        engine.dispose()


def _start_afresh(engine: Engine, publisher: Publisher) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    upgrade(engine)
    publisher.clear()


def _start_workers(children: Children, plan: Plan, settings: Settings) -> None:
    for number in range(1, plan.workers + 1):
        children.start(
            f"worker-{number}",
            "celery",
            *("-A", "workers.main", "worker", "-c", str(plan.slots), "-n", f"demo{number}@%h"),
            *(() if settings.log.level == "debug" else ("--without-gossip", "--without-mingle")),
        )


def _build_feed(plan: Plan, stop: Event) -> ReplayFeed | GeneratedFeed:
    if plan.data is not None:
        return ReplayFeed([plan.data], stop=stop)
    return GeneratedFeed(SYMBOLS, Timeframe.H1, CANDLES, SEED, START)


def _await_workers(operations: Operations, children: Children, count: int, stop: Event) -> None:
    until = time.monotonic() + PATIENCE_S
    while operations.status()["active_workers"] < count:
        _check_alive(children, stop)
        if time.monotonic() > until:
            raise DemonstrationError(f"no worker was ready within {PATIENCE_S:.0f} s:\n{children.tail('worker-1')}")
        stop.wait(LOOK_EVERY_S)


def _check_alive(children: Children, stop: Event) -> None:
    if stop.is_set():
        raise DemonstrationError("stopped before the end")
    for name in children.dead():
        raise DemonstrationError(f"{name} died; the end of its log:\n{children.tail(name)}")


class _ProducerThread(Thread):
    """Runs the producer beside the progress display and keeps what it raised."""

    def __init__(self, producer: Producer, stop: Event) -> None:
        super().__init__(name="producer", daemon=True)
        self._producer = producer
        self._stop_event = stop
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._producer.run(self._stop_event)
        except BaseException as error:
            self.error = error


def _run(
    producer: Producer,
    feed: ReplayFeed | GeneratedFeed,
    engine: Engine,
    children: Children,
    stop: Event,
    on_progress: Callable[[Progress], None],
) -> None:
    thread = _ProducerThread(producer, stop)
    thread.start()
    moved_at, last = time.monotonic(), -1
    while True:
        is_done = not thread.is_alive()
        if thread.error is not None:
            raise thread.error
        with engine.connect() as connection:
            missing = listings.count_open(connection)[1]
        progress = _progress(producer.report, feed.progress() or 0.0, missing)
        on_progress(progress)
        if is_done and progress.landed == progress.expected:
            return
        _check_alive(children, stop)
        if progress.landed != last:
            moved_at, last = time.monotonic(), progress.landed
        elif time.monotonic() - moved_at > PATIENCE_S:
            raise DemonstrationError(f"no outcome landed for {PATIENCE_S:.0f} s; {missing} are missing")
        thread.join(LOOK_EVERY_S) if thread.is_alive() else stop.wait(LOOK_EVERY_S)


def _progress(report: ProducerReport, fed: float, missing: int) -> Progress:
    # what is fed counts once its outcomes have landed
    expected = report.jobs
    landed = max(0, expected - missing)
    return Progress(fed * (landed / expected if expected else 1.0), report.candles, landed, expected)


def _summarise(engine: Engine, source: str, report: ProducerReport, fed: FeedReport, elapsed_s: float) -> Summary:
    with engine.connect() as connection:
        counted = listings.count_all(connection)
        return Summary(
            source=source,
            candles=report.candles,
            dispatches=counted["dispatches"],
            outcomes=listings.count_outcomes(connection),
            decisions=listings.count_decisions(connection),
            elapsed_s=elapsed_s,
            latency_ms=listings.load_latency(connection),
            rejected=dict(fed.rejected),
            gaps=fed.gaps,
            unreadable=list(fed.unreadable),
            positions=count_positions(connection),
            signals=listings.count_signals(connection),
        )
