"""What the producer learns from the ledger, and what becomes of its plans: shared chunks, throttled strategies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from app.broker import Envelope
from app.domain.jobs import OutcomeStatus
from app.domain.strategies import Priority
from app.producer.dispatch import Dispatcher
from app.producer.throttling import LONGEST_DELAY_S
from app.settings import DispatchSettings
from app.storage.plans import load_plan
from tests.building import candle, definition, outcome, register
from tests.integration.ledger import RULES, land_on, rows

THREE = (1, 2, 3)


@pytest.fixture
def dispatcher(engine: Engine) -> Dispatcher:
    """A producer's dispatcher that knows nothing yet and looks at the ledger with every batch."""
    register(engine, *(definition(f"s{number}", priority=Priority.HIGH) for number in THREE))
    return build(engine)


def build(engine: Engine) -> Dispatcher:
    return Dispatcher(
        engine,
        "test",
        settings=DispatchSettings(),
        hard_grace_s=5.0,
        rules=RULES,
        silence=timedelta(seconds=3),
    )


def play(engine: Engine, dispatcher: Dispatcher, first: int, count: int, **took_ms: float) -> list[Envelope]:
    """Dispatch candles one by one, each landed before the next: jobs take a hundredth of a ms unless told otherwise."""
    sent: list[Envelope] = []
    for number in range(first, first + count):
        sent = list(dispatcher.write([candle(number)]).envelopes)
        ended = [outcome(each, processing_ms=took_ms.get(f"s{each}", 0.01)) for each in THREE]
        land_on(engine, sent[0].chunk.dispatch_id, ended)
    return sent


def chunks(sent: Sequence[Envelope]) -> list[tuple[str, list[int]]]:
    return [(each.chunk.priority.value, [key.strategy_id for key in each.chunk.jobs]) for each in sent]


def reasons(engine: Engine, dispatch_id: int) -> list[str]:
    with engine.connect() as connection:
        return [chunk["reason"].partition(":")[0] for chunk in load_plan(connection, dispatch_id)]


@pytest.fixture(autouse=True)
def looks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.producer.knowledge.FIRST_LOOKS_EVERY_S", 0.0)
    monkeypatch.setattr("app.producer.knowledge.LOOK_EVERY_S", 0.0)


def test_new_strategies_travel_alone_until_three_jobs_of_each_have_ended(
    engine: Engine, dispatcher: Dispatcher
) -> None:
    before = play(engine, dispatcher, 0, 3)
    assert chunks(before) == [("high", [1]), ("high", [2]), ("high", [3])]
    assert all(each.alone for each in before)
    after = play(engine, dispatcher, 3, 1)
    assert chunks(after) == [("high", [1, 2, 3])]
    assert not dispatcher.is_learning
    assert reasons(engine, before[0].chunk.dispatch_id) == ["new", "new", "new"]
    assert reasons(engine, after[0].chunk.dispatch_id) == ["cheap and healthy"]
    assert rows(engine, "SELECT count(*), count(DISTINCT plan_id) FROM dispatches") == [(4, 2)]


def test_a_producer_that_starts_again_knows_what_the_ledger_knows(engine: Engine, dispatcher: Dispatcher) -> None:
    play(engine, dispatcher, 0, 4)
    assert chunks(build(engine).write([candle(9)]).envelopes) == [("high", [1, 2, 3])]


def test_one_that_was_stopped_by_force_travels_alone_from_then_on(engine: Engine, dispatcher: Dispatcher) -> None:
    sent = play(engine, dispatcher, 0, 4)
    sent = list(dispatcher.write([candle(4)]).envelopes)
    hung = outcome(2, status=OutcomeStatus.TIMED_OUT, signal=None, error_class="TimeoutError", error="too long")
    land_on(engine, sent[0].chunk.dispatch_id, [outcome(1), hung, outcome(3)])
    after = play(engine, dispatcher, 5, 1)
    assert chunks(after) == [("high", [1, 3]), ("high", [2])]
    assert reasons(engine, after[0].chunk.dispatch_id)[1] == "failing"


def test_one_beyond_its_limits_goes_to_the_low_queue_further_apart_and_says_why(
    engine: Engine, dispatcher: Dispatcher
) -> None:
    play(engine, dispatcher, 0, 24, s2=400.0)
    assert set(dispatcher.throttled()) == {"s2"}
    assert "P95 about" in dispatcher.throttled()["s2"]
    first, second = (list(dispatcher.write([candle(number)]).envelopes) for number in (30, 31))
    assert chunks(first) == [("high", [1, 3]), ("low", [2])]
    assert 0.0 < (first[1].countdown_s or 0.0) <= (second[1].countdown_s or 0.0) <= LONGEST_DELAY_S
    assert reasons(engine, first[0].chunk.dispatch_id) == ["cheap and healthy", "throttled"]


def test_a_plan_that_was_taken_back_is_stored_again(engine: Engine, dispatcher: Dispatcher) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE dispatches RENAME TO hidden"))
    with pytest.raises(Exception, match="dispatches"):
        dispatcher.write([candle(0)])
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO dispatches"))
    (number,) = {each.chunk.dispatch_id for each in dispatcher.write([candle(0)]).envelopes}
    assert reasons(engine, number) == ["new", "new", "new"]
