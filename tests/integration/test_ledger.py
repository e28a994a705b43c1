"""The ledger: outcomes, attempts and decisions are written once, together or not at all, whatever arrives twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from app.domain.decisions import ClosedBy, Decision
from app.domain.jobs import Outcome, OutcomeStatus, Signal
from app.errors import MessageError, UnknownDispatchError
from app.storage.landing import Attempt, Landing, land, land_all
from tests.building import candle, definition, outcome, register
from tests.integration.ledger import RULES, build_dispatcher, driver_of, land_on, rows, together
from tests.waiting import wait_until

STRATEGIES = (1, 2, 3, 4)


@pytest.fixture
def dispatch_id(engine: Engine) -> int:
    """A dispatch that expects four strategies, of weights 1 to 4."""
    register(engine, *(definition(f"s{n}", weight=float(n)) for n in STRATEGIES))
    return build_dispatcher(engine).write([candle(0)]).dispatch_ids[0]


def chunk_of(dispatch_id: int, *strategies: int) -> list[Outcome]:
    return [outcome(n) for n in strategies]


def landed(engine: Engine) -> list[int]:
    return [row[0] for row in rows(engine, "SELECT strategy_id FROM outcomes ORDER BY strategy_id")]


def counted(engine: Engine, dispatch_id: int) -> tuple[object, ...]:
    query = "SELECT landed, state, completed_at IS NOT NULL FROM dispatches WHERE id = :id"
    return rows(engine, query, id=dispatch_id)[0]


def decided(engine: Engine) -> list[tuple[object, ...]]:
    return rows(engine, "SELECT dispatch_id, action, score, weight_heard, missing, closed_by FROM decisions")


def test_the_last_outcome_brings_the_decision(engine: Engine, dispatch_id: int) -> None:
    assert land_on(engine, dispatch_id, chunk_of(dispatch_id, 1, 3)) is None
    assert counted(engine, dispatch_id) == (2, "open", False)
    assert decided(engine) == []
    short = outcome(4, signal=Signal(action=-1, strength=1.0))
    failed = outcome(2, status=OutcomeStatus.FAILED, signal=None, error_class="ValueError", error="no")
    decision = land_on(engine, dispatch_id, [failed, short])
    score = (1 * 0.5 + 3 * 0.5 - 4 * 1.0) / 8
    assert decision == Decision(action=-1, score=score, weight_heard=0.8, missing=(), closed_by=ClosedBy.COMPLETE)
    assert counted(engine, dispatch_id) == (4, "complete", True)
    assert decided(engine) == [(dispatch_id, -1, score, 0.8, [], "complete")]
    latency, elapsed = rows(
        engine,
        "SELECT latency_ms, extract(epoch FROM decided_at - created_at) * 1000 "
        "FROM decisions JOIN dispatches ON id = dispatch_id",
    )[0]
    assert 0 < latency <= float(elapsed)


def test_chunk_that_lands_again_changes_nothing(engine: Engine, dispatch_id: int) -> None:
    chunk = chunk_of(dispatch_id, *STRATEGIES)
    assert land_on(engine, dispatch_id, chunk) is not None
    tables = [f"SELECT * FROM {table}" for table in ("outcomes", "dispatches", "decisions", "attempts")]
    before = [rows(engine, table) for table in tables]
    other = [outcome(n, status=OutcomeStatus.CRASHED, signal=None) for n in STRATEGIES]
    assert land_on(engine, dispatch_id, chunk) is None
    assert land_on(engine, dispatch_id, other) is None  # the first answer stands
    assert [rows(engine, table) for table in tables] == before


def test_same_chunk_fifty_times_at_once_lands_once(engine: Engine, dispatch_id: int) -> None:
    chunk = chunk_of(dispatch_id, *STRATEGIES)

    def land_ten_times() -> list[Decision | None]:
        with driver_of(engine) as driver:
            return [land(driver, dispatch_id, "test", chunk, [], RULES) for _ in range(10)]

    answers = [answer for each in together(*[land_ten_times] * 5) for answer in each]
    assert len([answer for answer in answers if answer is not None]) == 1
    assert landed(engine) == list(STRATEGIES)
    assert counted(engine, dispatch_id) == (4, "complete", True)
    assert len(decided(engine)) == 1


def test_overlapping_chunks_at_once_count_every_strategy_once(engine: Engine, dispatch_id: int) -> None:
    chunks = [(1, 2), (2, 3), (3, 4), (4, 1), (1, 2, 3, 4)]
    answers = together(
        *(lambda ids=ids: land_on(engine, dispatch_id, chunk_of(dispatch_id, *ids)) for ids in chunks * 2)
    )
    assert len([answer for answer in answers if answer is not None]) == 1
    assert landed(engine) == list(STRATEGIES)
    assert counted(engine, dispatch_id) == (4, "complete", True)


class LandingThread(Thread):
    """Lands a chunk over its own connection in its own thread; its answer is there once it has ended."""

    def __init__(self, engine: Engine, dispatch_id: int, outcomes: Sequence[Outcome]) -> None:
        super().__init__(name="landing")
        self._arguments = (engine, dispatch_id, outcomes)
        self.answer: Decision | None = None
        self.start()

    def run(self) -> None:
        self.answer = land_on(*self._arguments)


def await_blocked(engine: Engine, count: int = 1) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    wait_until(lambda: rows(engine, waiting)[0][0] == count, "the other landing waits for the row of the dispatch")


@pytest.mark.parametrize(("first", "second"), [((1, 2), (3, 4)), ((3, 4), (1, 2)), ((1,), (2, 3, 4))])
def test_two_chunks_that_land_at_once_decide_once(
    engine: Engine, dispatch_id: int, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    with driver_of(engine) as driver:
        with driver.transaction():  # holds the commit back until the other one is on its way
            assert land(driver, dispatch_id, "test", chunk_of(dispatch_id, *first), [], RULES) is None
            other = LandingThread(engine, dispatch_id, chunk_of(dispatch_id, *second))
            await_blocked(engine)
            assert landed(engine) == []
        other.join()
    assert other.answer is not None
    assert other.answer.weight_heard == 1.0  # it has heard the other chunk as well
    assert counted(engine, dispatch_id) == (4, "complete", True)
    assert len(decided(engine)) == 1


def end_connection(engine: Engine, driver: psycopg.Connection[Any]) -> None:
    """End a connection from the server's side, and let the client find out."""
    rows(engine, "SELECT pg_terminate_backend(:pid)", pid=driver.info.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        driver.execute("SELECT 1")


def test_connection_that_dies_before_the_commit_leaves_neither_outcome_nor_decision(
    engine: Engine, dispatch_id: int
) -> None:
    land_on(engine, dispatch_id, chunk_of(dispatch_id, 1, 2, 3))
    with driver_of(engine) as driver, suppress(psycopg.OperationalError), driver.transaction():
        assert land(driver, dispatch_id, "test", chunk_of(dispatch_id, 4), [], RULES) is not None
        end_connection(engine, driver)
    assert landed(engine) == [1, 2, 3]
    assert counted(engine, dispatch_id) == (3, "open", False)
    assert decided(engine) == []
    assert land_on(engine, dispatch_id, chunk_of(dispatch_id, 4)) is not None
    assert len(decided(engine)) == 1


def test_chunk_that_waited_for_one_that_died_decides_nothing_alone(engine: Engine, dispatch_id: int) -> None:
    with driver_of(engine) as driver, suppress(psycopg.OperationalError), driver.transaction():
        land(driver, dispatch_id, "test", chunk_of(dispatch_id, 1, 2), [], RULES)
        other = LandingThread(engine, dispatch_id, chunk_of(dispatch_id, 3, 4))
        await_blocked(engine)
        end_connection(engine, driver)
    other.join()
    assert other.answer is None
    assert counted(engine, dispatch_id) == (2, "open", False)
    again = land_on(engine, dispatch_id, chunk_of(dispatch_id, 1, 2))
    assert again is not None
    assert again.weight_heard == 1.0


def test_dispatch_that_does_not_exist_records_nothing(engine: Engine, dispatch_id: int) -> None:
    unknown = dispatch_id + 1
    attempt = Attempt(1, 0, OutcomeStatus.FAILED, "ValueError", "no", 1.0)
    with pytest.raises(UnknownDispatchError, match=f"expected dispatch {unknown} in the ledger"):
        land_on(engine, unknown, chunk_of(unknown, 1, 2), [attempt])
    assert landed(engine) == []
    assert rows(engine, "SELECT * FROM attempts") == []
    assert decided(engine) == []


def test_failed_attempts_are_kept_once_and_do_not_count_as_landed(engine: Engine, dispatch_id: int) -> None:
    numbers = [(n, number) for n in (1, 2) for number in (0, 1)]
    tried = [Attempt(*each, OutcomeStatus.TIMED_OUT, "TimeoutError", "{}.{}".format(*each), 7.5) for each in numbers]
    for _ in range(3):
        assert land_on(engine, dispatch_id, [], tried) is None
    query = "SELECT strategy_id, attempt, status, error_class, error, processing_ms, worker FROM attempts ORDER BY 1, 2"
    assert rows(engine, query) == [
        (n, number, "timed_out", "TimeoutError", f"{n}.{number}", 7.5, "test") for n, number in numbers
    ]
    assert counted(engine, dispatch_id) == (0, "open", False)


@pytest.fixture
def many(engine: Engine) -> list[int]:
    """Ten dispatches that expect two strategies each."""
    register(engine, definition("a"), definition("b"))
    return list(build_dispatcher(engine).write([candle(n) for n in range(10)]).dispatch_ids)


def test_many_dispatches_land_in_one_go(engine: Engine, many: list[int]) -> None:
    mixed = [
        Landing(many[3], chunk_of(many[3], 1)),
        Landing(many[1], chunk_of(many[1], 2, 1)),
        Landing(many[3], chunk_of(many[3], 2)),  # the second chunk of the same dispatch completes it
        Landing(many[0], [], [Attempt(1, 0, OutcomeStatus.FAILED, "ValueError", "no", 1.0)]),
    ]
    with driver_of(engine) as driver:
        answers = land_all(driver, mixed, "test", RULES)
    assert sorted(answers) == [many[1], many[3]]
    assert [row[0] for row in sorted(decided(engine), key=str)] == [many[1], many[3]]
    assert [counted(engine, n)[0] for n in many[:4]] == [0, 2, 0, 2]
    assert rows(engine, "SELECT dispatch_id FROM attempts") == [(many[0],)]


def test_small_parts_land_one_by_one_and_the_last_one_decides(engine: Engine, dispatch_id: int) -> None:
    failed = [Attempt(4, 0, OutcomeStatus.FAILED, "ValueError", "no", 1.0)]
    with driver_of(engine) as driver:
        for number in (3, 1, 2):
            assert (
                land_all(driver, [Landing(dispatch_id, chunk_of(dispatch_id, number), expected=4)], "test", RULES) == {}
            )
        assert land_all(driver, [Landing(dispatch_id, [], failed, expected=4)], "test", RULES) == {}
        assert counted(engine, dispatch_id)[:2] == (3, "open")
        assert [*land_all(driver, [Landing(dispatch_id, chunk_of(dispatch_id, 4), expected=4)], "test", RULES)] == [
            dispatch_id
        ]
        assert land_all(driver, [Landing(dispatch_id, chunk_of(dispatch_id, 4), expected=4)], "test", RULES) == {}
    assert counted(engine, dispatch_id)[:2] == (4, "complete")
    assert len(decided(engine)) == 1 and rows(engine, "SELECT strategy_id FROM attempts") == [(4,)]


def test_one_dispatch_that_does_not_exist_takes_back_the_whole_landing(engine: Engine, many: list[int]) -> None:
    ghost = many[-1] + 1
    mixed = [Landing(many[0], chunk_of(many[0], 1, 2)), Landing(ghost, chunk_of(ghost, 1, 2))]
    with driver_of(engine) as driver, pytest.raises(UnknownDispatchError, match=str(ghost)):
        land_all(driver, mixed, "test", RULES)
    assert landed(engine) == []
    assert counted(engine, many[0])[0] == 0


@pytest.mark.parametrize("expected", [0, 3], ids=["in one transaction", "small parts by themselves"])
def test_bundles_that_overlap_in_any_order_neither_deadlock_nor_decide_twice(
    engine: Engine, many: list[int], expected: int
) -> None:
    def land_shuffled(seed: int) -> list[int]:
        landings = [Landing(n, chunk_of(n, strategy), expected=expected) for n in many for strategy in (1, 2)]
        decided_here: list[int] = []
        with driver_of(engine) as driver:
            for turn in range(5):
                random.Random(10 * seed + turn).shuffle(landings)
                answers = land_all(driver, landings, "test", RULES)
                decided_here += answers
        return decided_here

    answers = together(*(partial(land_shuffled, seed) for seed in range(4)))
    assert sorted(n for each in answers for n in each) == many
    assert [row[0] for row in sorted(decided(engine))] == many
    assert {counted(engine, n) for n in many} == {(2, "complete", True)}


def test_bundle_whose_connection_dies_leaves_nothing(engine: Engine, many: list[int]) -> None:
    with driver_of(engine) as driver, suppress(psycopg.OperationalError), driver.transaction():
        land_all(driver, [Landing(n, chunk_of(n, 1, 2)) for n in many], "test", RULES)
        end_connection(engine, driver)
    assert landed(engine) == []
    assert decided(engine) == []
    assert {counted(engine, n) for n in many} == {(0, "open", False)}


def test_chunk_without_anything_is_no_error(engine: Engine, dispatch_id: int) -> None:
    assert land_on(engine, dispatch_id, []) is None
    assert counted(engine, dispatch_id) == (0, "open", False)


def test_values_come_back_as_they_were(engine: Engine, dispatch_id: int) -> None:
    extras = {
        "läuft": "蝋燭 \u2028 🕯",
        "list": [1, 2.5, None, True, {"deep": ["x"]}],
        "big": 10**30,
        "quote": "'\"\\;--",
    }
    odd = outcome(
        1,
        signal=Signal(action=-1, strength=0.1 + 0.2, edge=-1e-300, stop=5e-324, target=12345.678, extras=extras),
        attempt=7,
    )
    endless = {"error_class": "E" * 500, "error": "ß{},'\"" * 50_000}
    long = outcome(2, status=OutcomeStatus.FAILED, signal=None, **endless)
    bare = outcome(3, signal=Signal(action=0, strength=0.0))
    land_on(engine, dispatch_id, [odd, long, bare])
    query = "SELECT action, strength, edge, detail, error_class, error, attempt FROM outcomes ORDER BY strategy_id"
    detail = {"stop": 5e-324, "target": 12345.678, "extras": extras}
    assert rows(engine, query) == [
        (-1, 0.1 + 0.2, -1e-300, detail, None, None, 7),
        (None, None, None, None, long.error_class, long.error, 0),
        (0, 0.0, None, None, None, None, 0),
    ]


@pytest.mark.parametrize("status", OutcomeStatus)
def test_every_status_is_accepted_and_only_success_is_heard(
    engine: Engine, dispatch_id: int, status: OutcomeStatus
) -> None:
    signal = Signal(action=1) if status is OutcomeStatus.SUCCEEDED else None
    ended = [outcome(n, status=status, signal=signal) for n in STRATEGIES]
    decision = land_on(engine, dispatch_id, ended)
    assert decision is not None
    assert decision.weight_heard == (1.0 if status is OutcomeStatus.SUCCEEDED else 0.0)
    assert (decision.action is None) == (status is not OutcomeStatus.SUCCEEDED)


def test_outcome_of_a_strategy_that_was_not_expected_is_refused(engine: Engine, dispatch_id: int) -> None:
    stranger = outcome(99, signal=Signal(action=-1, strength=1.0))
    with pytest.raises(MessageError, match=r"found also \[99\]"):
        land_on(engine, dispatch_id, [stranger])
    decision = land_on(engine, dispatch_id, chunk_of(dispatch_id, *STRATEGIES))
    found = decided(engine)
    assert len(found) == 1
    assert found[0][2:5] == (0.5, 1.0, [])
    assert decision is not None
