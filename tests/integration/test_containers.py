"""What a slot keeps of strategies, on real servers: shared indicators, one instance a revision, closed in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from sqlalchemy import Engine

from app.broker import create_celery
from app.domain.candles import Candle
from app.domain.jobs import Chunk
from app.domain.strategies import StrategyStatus
from app.settings import Settings
from app.storage.strategies import save_definition, set_status
from app.strategies import indicators
from app.strategies.sdk import Bars, Context, Indicator, Lines, Signal, Signals, Strategy
from tests.building import definition, register, walk
from tests.integration.ledger import build_dispatcher, rows
from workers.lifecycle import Slot, open_slot
from workers.shared import Shared

#: The soft limit of a job and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

MODULE = "tests.integration.test_containers"


class ByRsi(Strategy):
    """One of many that look at the same RSI, each under a name and with a limit of its own."""

    class Params(Strategy.Params):
        """Where it turns."""

        limit: float

    params: Params

    def indicators(self) -> dict[str, Indicator]:
        return {f"rsi_{self.params.limit:g}": Indicator.rsi(14)}

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        (rsi,) = indicators.values()
        action = (rsi < self.params.limit).view("int8")
        return Signals(action, action * 1.0)


class Tells(Strategy):
    """Tells when an instance is made and closed."""

    class Params(Strategy.Params):
        """Any."""

        number: int = 0

    params: Params
    made: ClassVar[list[str]] = []
    closed: ClassVar[list[str]] = []

    def __init__(self, params: Params | None = None, *, name: str | None = None) -> None:
        super().__init__(params, name=name)
        self.made.append(self._label)

    @property
    def _label(self) -> str:
        return f"{self.name}/{self.params.number}"

    def on_candle(self, context: Context) -> Signal:
        return Signal(action=0, strength=0.0)

    def close(self) -> None:
        self.closed.append(self._label)
        raise RuntimeError("the slot must not care")


@pytest.fixture
def settings_here(settings: Settings) -> Settings:
    strategies = settings.strategies.model_copy(update={"modules": ("tests.quant", "tests.integration")})
    worker = settings.worker.model_copy(update={"cached_strategies": 3})
    return settings.model_copy(update={"strategies": strategies, "worker": worker})


@pytest.fixture
def slot(settings_here: Settings, alarm: None) -> Iterator[Slot]:
    Tells.made.clear()
    Tells.closed.clear()
    slot = open_slot(create_celery(settings_here), settings_here, Shared())
    yield slot
    slot.close()


@pytest.fixture
def candles() -> Iterator[Candle]:
    return iter(walk("BTC-USD", 200))


def chunk_of(engine: Engine, candles: Iterator[Candle]) -> Chunk:
    """Dispatch the next candle to whoever subscribes now."""
    (envelope,) = build_dispatcher(engine, jobs_in_chunk=64).write([next(candles)]).envelopes
    return envelope.chunk


def tells(name: str, number: int = 0) -> Any:
    return definition(name, f"{MODULE}:Tells", params={"number": number})


def test_fifty_strategies_compute_the_same_indicator_once_a_chunk(
    engine: Engine, slot: Slot, candles: Iterator[Candle], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(engine, *(definition(f"s{n}", f"{MODULE}:ByRsi", params={"limit": 10.0 + n}) for n in range(50)))
    counted: Counter[str] = Counter()
    compute = indicators._compute

    def counting(family: Any, indicator: Indicator, bars: Bars) -> Any:
        counted[f"{indicator.name}{indicator.params} at {len(bars)}"] += 1
        return compute(family, indicator, bars)

    monkeypatch.setattr(indicators, "_compute", counting)
    for _ in range(80):
        slot.executor.execute([chunk_of(engine, candles)])
    assert rows(engine, "SELECT status, count(*) FROM outcomes GROUP BY 1") == [("succeeded", 50 * 80)]
    warmup = ByRsi(ByRsi.Params(limit=1.0)).warmup
    assert counted == {f"rsi(14,) at {count}": 1 for count in range(warmup, 81)}
    asked = rows(engine, "SELECT count(DISTINCT action) FROM outcomes")
    assert asked == [(2,)]  # they do differ in what they make of it


def test_instance_lives_from_its_first_job_until_its_strategy_is_unloaded(
    engine: Engine, slot: Slot, candles: Iterator[Candle]
) -> None:
    register(engine, tells("stays"), tells("goes"))
    for _ in range(2):
        slot.executor.execute([chunk_of(engine, candles)])
    assert (sorted(Tells.made), Tells.closed) == (["goes/0", "stays/0"], [])
    with engine.begin() as connection:
        set_status(connection, "goes", StrategyStatus.UNLOADED)
    slot.executor.execute([chunk_of(engine, candles)])
    assert (Tells.closed, len(slot.runtimes)) == (["goes/0"], 1)


def test_pausing_closes_nothing(engine: Engine, slot: Slot, candles: Iterator[Candle]) -> None:
    register(engine, tells("stays"), tells("rests"))
    slot.executor.execute([chunk_of(engine, candles)])
    with engine.begin() as connection:
        set_status(connection, "rests", StrategyStatus.PAUSED)
    slot.executor.execute([chunk_of(engine, candles)])
    assert (Tells.closed, len(slot.runtimes)) == ([], 2)


@pytest.mark.parametrize(("kept_for_s", "closed"), [(0.0, ["grows/1"]), (3600.0, [])])
def test_replaced_revision_is_closed_once_its_last_jobs_are_long_gone(
    engine: Engine, slot: Slot, candles: Iterator[Candle], kept_for_s: float, closed: list[str]
) -> None:
    slot.runtimes._replaced_for_s = kept_for_s
    register(engine, tells("grows", 1))
    old = chunk_of(engine, candles)
    slot.executor.execute([old])
    with engine.begin() as connection:
        save_definition(connection, tells("grows", 2))
    slot.executor.execute([chunk_of(engine, candles)])
    assert Tells.closed == closed
    slot.executor.execute([old.model_copy(update={"attempt": 1})])  # a late job of the old revision runs all the same
    assert rows(engine, "SELECT DISTINCT status FROM outcomes") == [("succeeded",)]
    assert Tells.made.count("grows/2") == 1


def test_least_recently_used_is_closed_when_there_are_too_many(
    engine: Engine, slot: Slot, candles: Iterator[Candle]
) -> None:
    chunks = []
    for number in range(5):
        register(engine, tells(f"s{number}"))
        chunk = chunk_of(engine, candles)
        chunks.append(chunk.model_copy(update={"jobs": chunk.jobs[number:]}))  # the newest alone
    for chunk in chunks:
        slot.executor.execute([chunk])
    assert (Tells.closed, len(slot.runtimes)) == (["s0/0", "s1/0"], 3)


def test_nothing_is_closed_under_a_chunk_that_needs_it(engine: Engine, slot: Slot, candles: Iterator[Candle]) -> None:
    register(engine, *(tells(f"s{number}") for number in range(5)))  # more than are kept
    slot.executor.execute([chunk_of(engine, candles)])
    assert (Tells.closed, len(slot.runtimes)) == ([], 5)


def test_slot_that_ends_closes_all(engine: Engine, slot: Slot, candles: Iterator[Candle]) -> None:
    register(engine, tells("a"), tells("b"))
    slot.executor.execute([chunk_of(engine, candles)])
    slot.close()
    assert sorted(Tells.closed) == ["a/0", "b/0"]
