"""A deployment of real servers for one test module: dispatches as the producer writes them, and real worker nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import text
from typer.testing import Result

from app.broker import Envelope, Publisher, create_celery
from app.domain.candles import Candle, Timeframe
from app.domain.costs import Room
from app.domain.strategies import Limits, Priority, StrategyDefinition
from app.operations import Operations
from app.producer.build import build_dispatcher
from app.settings import BrokerSettings, DispatchSettings, Settings, StrategySettings, WorkerSettings
from app.storage.strategies import save_definition
from tests.conftest import Deploy
from tests.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

#: Runs the command line with some arguments.
Run = Callable[..., Result]


class Stage:
    """One deployment and what a test does with it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        #: Of every key in Redis.
        self.prefix = settings.broker.key_prefix
        self.operations = Operations(settings)
        self.publisher = Publisher(create_celery(settings), Room(1))
        self.redis: redis.Redis = redis.from_url(settings.broker_dsn)
        self._opened = START

    @property
    def environment(self) -> dict[str, str]:
        """What makes another process work with the same deployment."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("CANDLEFLEET_")},
            "PYTHONPATH": str(REPOSITORY),
            "CANDLEFLEET_DATABASE_URL": self.settings.database_dsn.replace("+psycopg", "", 1),
            "CANDLEFLEET_BROKER_URL": self.settings.broker_dsn,
            "CANDLEFLEET_BROKER__KEY_PREFIX": self.prefix,
            "CANDLEFLEET_WORKER__HEARTBEAT_S": "0.2",
            "CANDLEFLEET_LOG__JSON_LINES": "true",
            "CANDLEFLEET_STRATEGIES__MODULES": '["tests.integration", "tests.quant"]',
        }

    def add(self, name: str, implementation: str = "ema_cross", **changes: Any) -> int:
        """Add a strategy; return its id."""
        definition = StrategyDefinition(
            name=name,
            implementation=implementation,
            params=changes.pop("params", {}),
            priority=changes.pop("priority", Priority.NORMAL),
            limits=Limits(**changes),
        )
        with self.operations.changing() as connection:
            return save_definition(connection, definition).strategy.id

    def write(self, count: int = 1) -> list[Envelope]:
        """Write candles and their dispatches; what comes back is not sent yet."""
        candles = []
        for _ in range(count):
            self._opened += HOUR
            bar = {"open": 100.0, "high": 101.0, "low": 99.0, "close": 100.5, "volume": 10.0}
            candles.append(Candle(symbol="ABC", timeframe=Timeframe.H1, open_time=self._opened, **bar))
        dispatcher = build_dispatcher(self.settings, self.operations.engine, "test")
        written = dispatcher.write(candles)
        dispatcher.mark_published(written.dispatch_ids)
        return list(written.envelopes)

    def push(self, raw: bytes | str, queue: str = "normal") -> None:
        """Put raw bytes into a queue."""
        self.redis.lpush(self.prefix + queue, raw)

    def raw(self, queue: str = "normal") -> list[bytes]:
        """Return what lies in a queue, newest first."""
        return [bytes(raw) for raw in self.redis.lrange(self.prefix + queue, 0, -1) if isinstance(raw, bytes)]

    def unacked(self) -> int:
        """Return how many messages workers hold."""
        count: int = self.redis.hlen(f"{self.prefix}unacked")
        return count

    def ask(self, question: str, **values: Any) -> list[Any]:
        """Ask Postgres."""
        with self.operations.engine.connect() as connection:
            return list(connection.execute(text(question), values))

    def statuses(self, dispatch_id: int) -> dict[int, str]:
        """Return the outcomes of a dispatch, by strategy."""
        question = "SELECT strategy_id, status FROM outcomes WHERE dispatch_id = :id"
        return {row[0]: row[1] for row in self.ask(question, id=dispatch_id)}

    def clear(self) -> None:
        """Start from nothing, ids included. No worker may run."""
        keys = list(self.redis.scan_iter(f"{self.prefix}*"))
        if keys:
            self.redis.delete(*keys)
        tables = "candles, series, strategies, strategy_revisions, dispatches, outcomes, attempts, decisions, breakers"
        tables += ", runs, variants, units, unit_trade_columns, unit_signals, unit_equity"
        others = "positions, position_events, actions, dead_letters, nodes, producers, verifications"
        with self.operations.changing() as connection:
            connection.execute(text(f"TRUNCATE {tables}, {others} RESTART IDENTITY CASCADE"))
            connection.execute(text("UPDATE catalogue SET version = version + 1"))

    def close(self) -> None:
        """Give connections back."""
        self.publisher.close()
        self.operations.close()
        self.redis.close()

    @contextmanager
    def worker(self, *, slots: int = 1) -> Iterator[Worker]:
        """Run a worker node; it is gone when this is left."""
        folder = Path(tempfile.mkdtemp(prefix="candlefleet-worker-"))
        worker = Worker(self, folder / "log", slots)
        try:
            wait_until(worker.is_ready, "the worker consumes", 60)
            yield worker
        except AssertionError:
            sys.stderr.write(worker.log())
            raise
        finally:
            worker.end()
            shutil.rmtree(folder)


class Worker:
    """One node: ``celery worker`` in a session of its own."""

    def __init__(self, stage: Stage, log: Path, slots: int) -> None:
        self._log = log
        command = ["celery", "-A", "workers.main", "worker", "--without-mingle", "--without-gossip", "-c", str(slots)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, "-Q", "control,high,normal,low", "-n", "staged@%h"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=REPOSITORY,
                env=stage.environment,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Tell whether it consumes."""
        assert self.is_alive(), self.log()
        return "ready." in self.log()

    def is_alive(self) -> bool:
        """Tell whether its main process runs."""
        return self.process.poll() is None

    def log(self) -> str:
        """Return what it has logged."""
        return self._log.read_text(errors="replace")

    def end(self) -> None:
        """End it and its slots."""
        if self.is_alive():
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def staging(deploy: Deploy) -> Iterator[Stage]:
    """Make a deployment of its own."""
    with deploy() as own:
        settings = Settings(
            database_url=own.database_url,
            broker_url=own.broker_url,
            worker=WorkerSettings(heartbeat_s=0.2),
            broker=BrokerSettings(key_prefix=own.broker.key_prefix),
            dispatch=DispatchSettings(trusted_after=0),
            strategies=StrategySettings(modules=("tests.integration", "tests.quant")),
        )
        stage = Stage(settings)
        try:
            yield stage
        finally:
            stage.close()
