"""A deployment seen from outside: a producer, workers and nodes that do what a test tells them."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine, text

from app.broker import Publisher
from app.domain.candles import Candle, Timeframe
from app.domain.jobs import Bundle, Chunk, Outcome, OutcomeStatus, Signal
from app.domain.strategies import Limits, Priority, RegisteredStrategy, StrategyDefinition
from app.maintenance.metrics import Findings
from app.maintenance.republisher import Republisher
from app.producer.build import build_dispatcher
from app.settings import Settings
from app.storage.engine import driver_of
from app.storage.landing import Attempt, land
from app.storage.nodes import NodeBeat, save_beat
from app.storage.strategies import save_definition

START = datetime(2024, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
SLEEPERS = "tests.integration.maintenance.sleeper"
CELERY_WORKER = (
    *("celery", "-A", "workers.main", "worker", "-c", "1", "-Q", "control,high,normal,low"),
    *("--without-gossip", "--without-mingle"),
)


class Scene:
    """A deployment with a few strategies, seen from outside."""

    def __init__(self, settings: Settings, engine: Engine, publisher: Publisher) -> None:
        self.settings = settings
        self.engine = engine
        self.publisher = publisher
        self.republisher = self.new_republisher()

    def new_republisher(self) -> Republisher:
        return Republisher(self.engine.begin, self.publisher, self.settings, Findings())

    def add(self, *names: str, priority: Priority = Priority.NORMAL, weight: float = 1.0) -> list[RegisteredStrategy]:
        with self.engine.begin() as connection:
            return [
                save_definition(
                    connection,
                    StrategyDefinition(name=name, implementation="ema_cross", priority=priority, weight=weight),
                ).strategy
                for name in names
            ]

    def add_sleepers(self, *names: str, while_exists: Path) -> list[RegisteredStrategy]:
        """Add strategies that sleep for as long as a file exists."""
        while_exists.touch()
        with self.engine.begin() as connection:
            return [
                save_definition(
                    connection,
                    StrategyDefinition(
                        name=name,
                        implementation=f"{SLEEPERS}:Sleeper",
                        params={"while_exists": str(while_exists)},
                        limits=Limits(timeout_ms=120_000),
                    ),
                ).strategy
                for name in names
            ]

    def held(self) -> list[str]:
        """Return what all nodes say they hold."""
        return [task_id for row in self.rows("SELECT held FROM nodes") for task_id in row.held]

    def write(self, *indices: int, publish: bool = True, mark: bool = True, close: float = 100.5) -> list[int]:
        """Let a producer write candles; return the ids of their dispatches."""
        candles = [_candle(index, close) for index in indices]
        dispatcher = build_dispatcher(self.settings, self.engine, "test")
        written = dispatcher.write(candles)
        if publish:
            self.publisher.publish(written.envelopes)
            if mark:
                dispatcher.mark_published(written.dispatch_ids)
        return list(written.dispatch_ids)

    def land(self, dispatch_id: int, *strategy_ids: int, attempts: Sequence[Attempt] = ()) -> None:
        """Let a worker record successes."""
        outcomes = [
            Outcome(
                strategy_id=number,
                strategy_revision=1,
                status=OutcomeStatus.SUCCEEDED,
                signal=Signal(action=1),
                queued_ms=1.0,
                processing_ms=1.0,
            )
            for number in strategy_ids
        ]
        with self.engine.begin() as connection:
            land(driver_of(connection), dispatch_id, "test", outcomes, attempts, self.settings.rules)

    def beat(self, node: str = "a@test", *, at: datetime, **changes: Any) -> None:
        """Let a node report."""
        values: dict[str, Any] = {"queues": (), "slots": 2, "busy": 0, "processed": 0, "errors": 0, "rss_bytes": 0}
        beat = NodeBeat(node=node, started_at=at, **{**values, **changes})
        with self.engine.begin() as connection:
            save_beat(connection, beat)
            connection.execute(text("UPDATE nodes SET seen_at = :at WHERE node = :node"), {"at": at, "node": node})

    def take(self, queue: str = "normal") -> list[Chunk]:
        """Take every message out of a queue, in the order in which workers would."""
        return [chunk for _, chunk in self.take_with_ids(queue)]

    def take_with_ids(self, queue: str = "normal") -> list[tuple[str, Chunk]]:
        with redis.from_url(self.settings.broker_dsn) as client:
            key = f"{self.settings.broker.key_prefix}{queue}"
            raw = [json.loads(each) for each in client.lrange(key, 0, -1)][::-1]
            client.delete(key)
        bodies = [(each["headers"]["id"], json.loads(base64.b64decode(each["body"]))[0][0]) for each in raw]
        return [(task_id, chunk) for task_id, body in bodies for chunk in Bundle.from_wire(body).chunks]

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query), values))

    def change(self, query: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(query), values)

    def settle(self, at: datetime) -> None:
        """Let maintenance have been active for long enough to judge at a given moment."""
        self.republisher.run_once(at - timedelta(seconds=4))


def _candle(index: int, close: float = 100.5) -> Candle:
    return Candle(
        symbol="BTC-USD",
        timeframe=Timeframe.H1,
        open_time=START + timedelta(hours=index),
        open=100.0,
        high=101.0,
        low=99.0,
        close=close,
        volume=10.0,
    )


def later(seconds: float) -> datetime:
    """Return a moment to pass to a service, seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Maintaining:
    """A maintenance process."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "maintenance"],
                env=process_environment(settings),
                stdout=output,
                stderr=output,
                cwd=ROOT,
            )

    def says(self, words: str) -> bool:
        return words in self.log.read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Worker:
    """A real worker node."""

    def __init__(self, settings: Settings, name: str, log: Path) -> None:
        self.node = f"{name}@test"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *CELERY_WORKER, "-n", self.node],
                env=process_environment(settings),
                stdout=output,
                stderr=output,
                cwd=ROOT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill the node with its slots: all of it is gone at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def process_environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "CANDLEFLEET_DATABASE_URL": settings.database_dsn.replace("+psycopg", "", 1),
        "CANDLEFLEET_BROKER_URL": settings.broker_dsn,
        "CANDLEFLEET_BROKER__KEY_PREFIX": settings.broker.key_prefix,
        "CANDLEFLEET_STRATEGIES__MODULES": json.dumps(settings.strategies.modules),
        "PYTHONPATH": str(ROOT),
    }
