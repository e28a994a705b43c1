"""What acceptance tests do and look at: a real producer in this process, and the rows that the fleet wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import pytest
from celery import Celery
from sqlalchemy import func, select

from app.broker import Envelope, Publisher, create_celery
from app.domain.candles import Candle
from app.domain.costs import Room
from app.domain.strategies import RegisteredStrategy, StrategyDefinition
from app.feeds.base import Feed
from app.producer.build import build_producer
from app.producer.service import ProducerReport
from app.settings import Settings
from app.storage.engine import build_engine
from app.storage.nodes import load_nodes
from app.storage.schema import attempts, decisions, dispatches, outcomes, strategies
from tests.building import build_publisher, by_close, register
from tests.waiting import wait_until

Row = dict[str, Any]

#: Seconds within which a producer that is told to stop publishes what it holds: a full queue of the slowest jobs.
PUBLISHED_WITHIN_S = 60.0


class RepeatingPublisher(Publisher):
    """Delivers everything several times, as a broker that lost its acknowledgements does; remembers what it sent."""

    times = 1

    def __init__(self, app: Celery, room: Room) -> None:
        super().__init__(app, room)
        self.sent: list[Envelope] = []

    def send(self, messages: Iterable[Sequence[Envelope]]) -> None:
        kept = list(messages)
        self.sent += [each for message in kept for each in message]
        for _ in range(self.times):
            super().send(kept)


class Scene:
    """One deployment, seen from its producer's side."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = build_engine(settings.database_dsn, name="acceptance tests")
        self.publisher = RepeatingPublisher(create_celery(settings), settings.dispatch.room)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.publisher.close()
        self.engine.dispose()

    def register(self, *definitions: StrategyDefinition) -> list[RegisteredStrategy]:
        """Put definitions into the catalogue."""
        return register(self.engine, *definitions)

    def run(self, feed: Feed, *, chunking: bool = True, stop: Event | None = None) -> ProducerReport:
        """Run a real producer to the end of a feed."""
        dispatch = self.settings.dispatch.model_copy(update={"chunking": chunking})
        settings = self.settings.model_copy(update={"dispatch": dispatch})
        publisher = self.publisher if chunking else build_publisher(settings)
        try:
            return build_producer(settings, self.engine, publisher, feed).run(stop or Event())
        finally:
            if publisher is not self.publisher:
                publisher.close()

    @contextmanager
    def producing(self, feed: Feed, *, chunking: bool = True) -> Iterator[Thread]:
        """Run a real producer in a thread; it is told to stop, and has ended, when this is left.

        All that it holds is published before: nobody else would send it, without maintenance.
        """
        stop = Event()
        thread = Thread(target=lambda: self.run(feed, chunking=chunking, stop=stop), name="producer", daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.producer.service.STOP_GRACE_S", PUBLISHED_WITHIN_S)
            thread.start()
            try:
                yield thread
            finally:
                stop.set()
                thread.join(PUBLISHED_WITHIN_S + 30)
        assert not thread.is_alive()

    def play(self, *series: Sequence[Candle], chunking: bool = True) -> ProducerReport:
        """Run a real producer over series of the same times and wait until all that is expected has landed."""
        report = self.run(by_close(*series), chunking=chunking)
        self.wait_until_landed(*(candles[0].symbol for candles in series))
        return report

    def wait_until_landed(self, *symbols: str, timeout_s: float = 60.0) -> None:
        """Wait until no dispatch of these series is open."""
        wait_until(lambda: self.missing(*symbols) == 0, "every expected outcome lands", timeout_s)

    def wait_until_idle(self, timeout_s: float = 30.0) -> None:
        """Wait until no message is on a queue or in a worker's hands."""
        wait_until(lambda: self.messages() == 0, "workers have acknowledged everything", timeout_s)

    def missing(self, *symbols: str) -> int:
        """Return how many expected outcomes of series have not landed."""
        left = func.coalesce(func.sum(dispatches.c.expected - dispatches.c.landed), 0)
        with self.engine.connect() as connection:
            return int(connection.execute(select(left).where(dispatches.c.symbol.in_(symbols))).scalar_one())

    def processed(self) -> int:
        """Return how many jobs the nodes say, from now on, that they have executed; every copy counts."""
        asked_at = datetime.now(UTC)

        def fresh() -> list[Row] | None:
            with self.engine.connect() as connection:
                nodes = load_nodes(connection, timedelta(minutes=1))
            return nodes if nodes and all(node["seen_at"] > asked_at for node in nodes) else None

        return sum(node["processed"] for node in wait_until(fresh, "every node reports again") or [])

    def nodes(self) -> list[str]:
        """Return the names of the nodes that have reported and not said goodbye."""
        with self.engine.connect() as connection:
            return [node["node"] for node in load_nodes(connection, timedelta(minutes=1))]

    def messages(self) -> int:
        """Return how many messages wait or are being executed."""
        channel = self.publisher._open().channel
        return sum(self.publisher.depths().values()) + int(channel.client.hlen(channel.unacked_key))

    def outcomes(self, *symbols: str) -> list[Row]:
        """Load the outcomes of series, with their candle and their strategy's name, by dispatch and strategy."""
        query = (
            select(dispatches, outcomes, strategies.c.name, dispatches.c.revision.label("candle_revision"))
            .join_from(outcomes, dispatches, dispatches.c.id == outcomes.c.dispatch_id)
            .join(strategies, strategies.c.id == outcomes.c.strategy_id)
            .where(dispatches.c.symbol.in_(symbols))
            .order_by(outcomes.c.dispatch_id, outcomes.c.strategy_id)
        )
        return self._rows(query)

    def dispatches(self, *symbols: str) -> list[Row]:
        """Load the dispatches of series, oldest first."""
        return self._rows(select(dispatches).where(dispatches.c.symbol.in_(symbols)).order_by(dispatches.c.id))

    def decisions(self, *symbols: str) -> dict[int, Row]:
        """Load the decisions of series by dispatch id."""
        query = select(decisions).join(dispatches, dispatches.c.id == decisions.c.dispatch_id)
        return {row["dispatch_id"]: row for row in self._rows(query.where(dispatches.c.symbol.in_(symbols)))}

    def attempts(self, *symbols: str) -> list[Row]:
        """Load the failed attempts of series that were followed by another, with the strategy's name, in order."""
        query = (
            select(attempts, strategies.c.name)
            .join_from(attempts, dispatches, dispatches.c.id == attempts.c.dispatch_id)
            .join(strategies, strategies.c.id == attempts.c.strategy_id)
            .where(dispatches.c.symbol.in_(symbols))
            .order_by(attempts.c.dispatch_id, attempts.c.strategy_id, attempts.c.attempt)
        )
        return self._rows(query)

    def _rows(self, query: Any) -> list[Row]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def answers(rows: Sequence[Row]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return what outcomes say, by candle and strategy, without the symbol: to compare two runs cell by cell."""
    said = ("status", "action", "strength", "edge", "detail", "error_class", "error", "attempt", "strategy_revision")
    keyed = {(row["open_time"], row["candle_revision"], row["name"]): tuple(row[key] for key in said) for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def assert_exactly_once(scene: Scene, *symbols: str) -> None:
    """Every dispatch has one outcome of each expected strategy and of nobody else, is complete, and is decided once."""
    landed: dict[int, Counter[int]] = {}
    for row in scene.outcomes(*symbols):
        landed.setdefault(row["id"], Counter())[row["strategy_id"]] += 1
    opened = scene.dispatches(*symbols)
    assert opened
    for dispatch in opened:
        assert landed[dispatch["id"]] == Counter(dispatch["strategy_ids"])
        assert (dispatch["landed"], dispatch["expected"]) == (len(dispatch["strategy_ids"]),) * 2
        assert dispatch["state"] == "complete"
        assert None not in (dispatch["completed_at"], dispatch["published_at"])
    assert scene.decisions(*symbols).keys() == {dispatch["id"] for dispatch in opened}
