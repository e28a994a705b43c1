"""Batch runs on real servers, in this process: planned, started, worked on by a slot, recorded once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Connection, Engine

from app.broker import BATCH_QUEUE, Publisher, create_celery
from app.domain.candles import Timeframe
from app.domain.runs import Method, RunState, UnitState
from app.domain.strategies import Trading
from app.errors import ConfigurationError, MessageError
from app.operations import Operations
from app.operations_compare import compare_live, compare_runs
from app.operations_estimate import estimate
from app.operations_runs import cancel, load, pause, plan, resume, start
from app.runs.evaluating import evaluate_span
from app.runs.report.sampling import sample
from app.runs.shapes import Trade
from app.runs.spans import Span
from app.runs.specification import parse_spec, read_draft
from app.runs.trading import trade
from app.settings import RunSettings, Settings
from app.storage import runs, units
from app.storage.candles import record_candles
from app.storage.ranges import load_range
from app.storage.runs import Run
from app.storage.units import Stint, UnitEnd, load_sight
from app.strategies.bars import Bars
from app.strategies.builtin import BUILTINS
from app.tickets import Ticket, Tickets, read_ticket
from tests.building import definition, register, walk
from tests.integration.ledger import build_dispatcher, rows
from tests.waiting import wait_until
from workers.lifecycle import Slot
from workers.stints import Lookout, StoppedError

#: The soft limit of a unit and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

SPEC = {"strategies": ["cross"], "timeframe": "1h", "from": "2024-01-08T00:00Z", "to": "2024-03-01T00:00Z"}
HOURS = 1272

Open = Callable[[], psycopg.Connection[Any]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # as long as it is by default: with a shorter one, live has forgotten what a range still remembers
    return settings.model_copy(update={"worker": settings.worker.model_copy(update={"window": 512})})


@pytest.fixture
def connect(settings: Settings) -> Iterator[Open]:
    """Opens connections as slots have them."""
    opened: list[psycopg.Connection[Any]] = []

    def connect() -> psycopg.Connection[Any]:
        opened.append(psycopg.connect(settings.database_dsn.replace("+psycopg", ""), autocommit=True))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def store(engine: Engine, *symbols: str, count: int = 1500) -> None:
    for symbol in symbols:
        with engine.begin() as connection:
            record_candles(connection, walk(symbol, count), "test")


def begin(operations: Operations, *symbols: str, **changes: Any) -> Run:
    register(operations.engine, definition("cross"))
    store(operations.engine, *symbols)
    return start(operations, parse_spec({**SPEC, **changes})).run


def test_a_run_and_how_far_it_is_are_of_the_same_moment(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(operations, "AAA")
    count = runs.load_progress

    def count_later(connection: Connection, run_id: int) -> runs.Progress:
        cancel(operations, run_id)
        return count(connection, run_id)

    with monkeypatch.context() as patched:
        patched.setattr(runs, "load_progress", count_later)
        found, progress = load(operations, run.id)
    assert (found.finished_at, progress.state, progress.units["pending"]) == (None, RunState.RUNNING, 1)
    found, progress = load(operations, run.id)
    assert found.finished_at is not None and progress.state is RunState.CANCELLED


def finish(slot: Slot, run_id: int) -> None:
    while slot.batch.work(run_id, 0):
        pass


def states(operations: Operations, run: Run) -> dict[str, int]:
    with operations.reading() as connection:
        return runs.load_progress(connection, run.id).units


def test_a_run_is_worked_on_to_its_end_and_leaves_what_the_engine_says(operations: Operations, slot: Slot) -> None:
    run = begin(operations, "AAA", "BBB", grid={"fast": [5, 8], "slow": [20, 30, 40]})
    finish(slot, run.id)
    with operations.reading() as connection:
        progress = runs.load_progress(connection, run.id)
        listed = runs.list_units(connection, run.id, None, 100)
    assert (progress.state, progress.units["succeeded"], progress.total) == (RunState.COMPLETE, 12, 12)
    assert progress.candles == run.candles == 12 * HOURS
    assert {unit["attempts"] for unit in listed} == {1}
    unit = next(unit for unit in listed if unit["symbol"] == "BBB" and unit["params"]["slow"] == 30)
    bars = Bars.from_candles(walk("BBB", 1500)[: 7 * 24 + HOURS])
    span = Span(bars, 7 * 24, run.window, 0)
    strategy = BUILTINS["ema_cross"](BUILTINS["ema_cross"].Params(**unit["params"]))
    cells = evaluate_span(strategy, span, Method.AUTO)
    made = trade(span, cells, Trading())
    place = f"run_id = {run.id} AND unit = {unit['number']}"
    told = rows(
        operations.engine,
        "SELECT (extract(epoch FROM opened_at) * 1000)::bigint, (extract(epoch FROM closed_at) * 1000)::bigint, side, "
        f"quantity, entry_price, exit_price, fees, profit, reason FROM unit_trades WHERE {place} ORDER BY number",
    )
    assert [Trade(*row) for row in told] == list(made.trades) != []
    ((opened_ms, action, strength),) = rows(
        operations.engine, f"SELECT opened_ms, action, strength FROM unit_signals WHERE {place}"
    )
    held = np.searchsorted(opened_ms, bars.open_time[span.first :], side="right") - 1
    np.testing.assert_array_equal(np.array(action)[held], cells.action)
    assert strength == cells.strength[np.searchsorted(bars.open_time[span.first :], opened_ms)].tolist()
    ((closed_ms, equity),) = rows(operations.engine, f"SELECT closed_ms, equity FROM unit_equity WHERE {place}")
    kept = sample(made.curve)
    assert (tuple(closed_ms), tuple(equity)) == (kept.times_ms, kept.equity)


def test_a_range_comes_with_the_history_that_a_window_needs(engine: Engine, connect: Open) -> None:
    candles = walk("AAA", 600)
    with engine.begin() as connection:
        record_candles(connection, [each for n, each in enumerate(candles) if n not in (290, 350)], "test")
    since, until = candles[300].open_time, candles[400].open_time
    wanted = {"since": since, "until": until}
    bars = load_range(connect(), "AAA", Timeframe.H1, **wanted, before=50)
    expected = Bars.from_candles([each for n, each in enumerate(candles[:400]) if n >= 249 and n not in (290, 350)])
    for name in ("open_time", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(bars, name), getattr(expected, name))
    assert len(load_range(connect(), "AAA", Timeframe.H1, **wanted, before=900)) == 398
    assert len(load_range(connect(), "ZZZ", Timeframe.H1, **wanted, before=50)) == 0


def test_a_result_counts_only_under_the_claim_it_was_computed_for(operations: Operations, connect: Open) -> None:
    run = begin(operations, "AAA", grid={"fast": [5, 8]})
    frozen, other = Stint(run.id, 0, 111, "frozen"), Stint(run.id, 1, 222, "other")
    first, second = connect(), connect()
    assert units.take_ticket(first, frozen)
    # a quarter of what is free at most, and one at least
    claimed = [each for _ in range(2) for each in units.claim_units(first, frozen, 10)]
    assert [each.unit.number for each in claimed] == [0, 1]
    assert units.take_ticket(second, other)
    assert units.claim_units(second, other, 10) == [] and units.adopt_unit(second, other) is None
    first.close()  # the machine is gone; what it computes goes on
    adopted = wait_until(lambda: units.adopt_unit(second, other), "the lock went with its connection")
    assert adopted is not None and (adopted.unit.number, adopted.attempt) == (0, 1)
    ends = [UnitEnd(number, UnitState.SUCCEEDED, 1) for number in (0, 1)]
    late = connect()
    assert units.record(late, frozen, ends) == 1  # the one that nobody else has taken
    assert units.record(second, other, ends) == 1
    assert units.record(second, other, ends) == 0
    units.give_back_ticket(second, other)
    with operations.reading() as connection:
        assert runs.load_progress(connection, run.id).state is RunState.COMPLETE


def test_one_slot_at_most_works_on_a_ticket_and_gives_back_what_it_did_not_do(
    operations: Operations, connect: Open
) -> None:
    run = begin(operations, "AAA", grid={"fast": [5, 8]})
    first, second = connect(), connect()
    stint, again = Stint(run.id, 0, 1, "a"), Stint(run.id, 0, 2, "b")
    assert units.take_ticket(first, stint) and not units.take_ticket(second, again)
    assert len(units.claim_units(first, stint, 1)) == 1
    units.give_back_ticket(first, stint)
    assert units.take_ticket(second, again)
    assert [each.attempt for _ in range(2) for each in units.claim_units(second, again, 5)] == [1, 1]


def test_a_slot_leaves_most_of_what_is_free_to_others(operations: Operations, connect: Open) -> None:
    run = begin(operations, "AAA", grid={"fast": list(range(3, 19))})
    stint, connection = Stint(run.id, 0, 1, "a"), connect()
    claimed = [len(units.claim_units(connection, stint, most)) for most in (100, 100, 2, 100, 100, 100, 100)]
    assert claimed == [4, 3, 2, 1, 1, 1, 1]


def test_a_slot_rests_after_its_records_only_while_candles_come(
    operations: Operations, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, rested, driver = begin(operations, "AAA"), list[float](), connect()
    monkeypatch.setattr("workers.stints.time.sleep", rested.append)
    lookout = Lookout(lambda action: action(driver), run.id)
    for _ in range(2):
        lookout.look()
        lookout.rest(0.01)
        lookout = Lookout(lambda action: action(driver), run.id)
        build_dispatcher(operations.engine).write(walk("LIVE", 1))
    assert rested == [pytest.approx(0.05)]
    assert load_sight(driver, run.id, timedelta()) == (RunState.RUNNING, False)
    cancel(operations, run.id)
    with pytest.raises(StoppedError):
        lookout.look()


def test_only_what_ends_a_run_waits_for_the_disk(operations: Operations, connect: Open) -> None:
    run = begin(operations, "AAA")
    stint, connection = Stint(run.id, 0, 1, "a"), connect()

    def waits() -> tuple[Any, ...] | None:
        return connection.execute("SHOW synchronous_commit").fetchone()

    before = waits()
    assert units.take_ticket(connection, stint) and waits() == ("off",)
    assert not units.take_ticket(connect(), stint)
    units.give_back_ticket(connection, stint)
    assert waits() == before == ("on",)


def test_a_slot_leaves_a_run_that_is_paused_and_what_was_claimed_is_free(operations: Operations, slot: Slot) -> None:
    run = begin(operations, "AAA", grid={"fast": [5, 8]})
    assert pause(operations, run.id) is RunState.PAUSED
    assert slot.batch.work(run.id, 0) is None
    assert states(operations, run)["pending"] == 2
    resume(operations, run.id)
    finish(slot, run.id)
    assert states(operations, run)["succeeded"] == 2


def test_a_cancelled_run_counts_nothing_that_ends_later(operations: Operations, connect: Open) -> None:
    run = begin(operations, "AAA")
    stint, connection = Stint(run.id, 0, 1, "a"), connect()
    units.take_ticket(connection, stint)
    units.claim_units(connection, stint, 5)
    assert cancel(operations, run.id) is RunState.CANCELLED
    assert units.record(connection, stint, [UnitEnd(0, UnitState.SUCCEEDED, 1)]) == 0
    assert states(operations, run)["cancelled"] == 1
    assert cancel(operations, run.id) is RunState.CANCELLED


@pytest.mark.parametrize(
    ("implementation", "limits", "error", "text"),
    [
        ("tests.quant.misbehaving:Sleeps", {"timeout_ms": 50}, "TimeoutError", "raise limits.timeout_ms of the run"),
        ("tests.quant.misbehaving:Stubborn", {"timeout_ms": 50}, "TimeoutError", "expected 1,272 candles within 50 ms"),
        ("tests.quant.misbehaving:Quits", {}, "SystemExit", ""),
        ("tests.quant.misbehaving:Garbage", {}, "InvalidSignalError", "candle opened"),
        ("tests.quant.misbehaving:Unspeakable", {}, "Silent", "cannot be shown"),
        ("tests.quant.misbehaving:PutsOff", {}, "TransientError", "not now"),
    ],
)
def test_a_unit_that_fails_stops_nothing(
    operations: Operations, slot: Slot, implementation: str, limits: dict[str, int], error: str, text: str
) -> None:
    register(operations.engine, definition("bad", implementation))
    run = begin(operations, "AAA", strategies=["bad", "cross"], limits={**limits, "retries": 1})
    finish(slot, run.id)
    with operations.reading() as connection:
        failed, well = runs.list_units(connection, run.id, None, 10)[::-1]
    assert (failed["state"], failed["attempts"], failed["error_class"]) == ("failed", 2, error)
    assert text in failed["error"]
    assert well["state"] == "succeeded"


def test_code_that_is_not_what_was_planned_is_not_run(operations: Operations, slot: Slot) -> None:
    run = begin(operations, "AAA")
    with operations.changing() as connection:
        connection.exec_driver_sql("UPDATE variants SET fingerprint = 'other.code'")
    finish(slot, run.id)
    with operations.reading() as connection:
        (unit,) = runs.list_units(connection, run.id, UnitState.FAILED, 10)
    assert unit["attempts"] == 1 and "not what the run was planned with" in unit["error"]


def test_the_same_key_is_the_same_run(operations: Operations) -> None:
    run = begin(operations, "AAA", key="nightly")
    again = start(operations, parse_spec({**SPEC, "key": "nightly"}))
    assert (again.run.id, again.is_new) == (run.id, False)
    with pytest.raises(ConfigurationError, match="'nightly' was used for run 1, whose specification is another"):
        start(operations, parse_spec({**SPEC, "key": "nightly", "grid": {"fast": [5]}}))


def test_a_million_units_are_refused_before_any_is_stored(settings: Settings, operations: Operations) -> None:
    register(operations.engine, definition("cross"))
    store(operations.engine, "AAA", count=400)
    grid = {"fast": list(range(2, 1002)), "slow": list(range(3, 1003))}
    with pytest.raises(ConfigurationError, match=r"at most 100,000 units, found 1,000,000 .* CANDLEFLEET_RUNS__MOST"):
        start(operations, parse_spec({**SPEC, "grid": grid}))
    assert rows(operations.engine, "SELECT count(*) FROM runs") == [(0,)]
    assert RunSettings().most_units == settings.runs.most_units


@contextmanager
def sending(settings: Settings) -> Iterator[Publisher]:
    publisher = Publisher(create_celery(settings), settings.dispatch.room)
    try:
        yield publisher
    finally:
        publisher.close()


def test_lost_tickets_are_sent_again_and_those_that_somebody_has_are_not(
    settings: Settings, operations: Operations, connect: Open
) -> None:
    run = begin(operations, "AAA", grid={"fast": [5, 8, 9]})
    now = datetime.now(UTC)
    with sending(settings) as publisher, operations.changing() as connection:
        waiting = Ticket.find(publisher.task_ids(BATCH_QUEUE))
        assert waiting == {Ticket(run.id, 0), Ticket(run.id, 1)}
        tickets = Tickets(publisher, settings.silence)
        assert tickets.send_missing(connection, now + timedelta(minutes=1)) == 0
        publisher.clear()
        units.take_ticket(connect(), Stint(run.id, 1, 1, "somebody"))
        assert tickets.send_missing(connection, now) == 0  # it may be on its way
        assert tickets.send_missing(connection, now + timedelta(seconds=3)) == 1
        assert Ticket.find(publisher.task_ids(BATCH_QUEUE)) == {Ticket(run.id, 0)}
        assert tickets.send_missing(connection, now + timedelta(seconds=9)) == 0


@pytest.mark.parametrize("body", [None, [], {}, {"run": "1", "ticket": 0}, {"run": 1, "ticket": -1}, {"run": 2**40}])
def test_what_is_no_ticket_is_refused(body: object) -> None:
    with pytest.raises(MessageError, match="expected an object with the numbers of a run and a ticket"):
        read_ticket(body)


def test_a_ticket_of_no_run_is_refused(slot: Slot) -> None:
    with pytest.raises(MessageError, match="no run 12"):
        slot.batch.work(12, 0)


def test_an_estimate_comes_from_units_of_before(operations: Operations, slot: Slot) -> None:
    run = begin(operations, "AAA")
    spec = parse_spec({**SPEC, "grid": {"fast": [5, 6, 7]}})
    before = estimate(operations, spec, plan(operations, spec))
    assert (before.work_s, before.unknown) == (None, ("ema_cross",))
    finish(slot, run.id)
    after = estimate(operations, spec, plan(operations, spec))
    with operations.reading() as connection:
        took_s = runs.load_progress(connection, run.id).elapsed_ms / 1000
    assert after.work_s == pytest.approx(3 * took_s)
    # what blocks cost says nothing of windows, and a backtest nothing of a market's latest candle
    for other in ({"method": "windows"}, {"kind": "evaluate", "from": None}):
        told = {key: value for key, value in {**SPEC, **other}.items() if value}
        assert estimate(operations, parse_spec(told), plan(operations, parse_spec(told))).work_s is None
    evaluated = start(operations, parse_spec(told)).run
    finish(slot, evaluated.id)
    assert (estimate(operations, parse_spec(told), plan(operations, parse_spec(told))).work_s or 0) > 0


def test_live_and_a_run_over_the_same_candles_say_the_same(operations: Operations, slot: Slot) -> None:
    names = sorted(BUILTINS)
    register(operations.engine, *(definition(name.replace("_", "-"), name) for name in names))
    candles = walk("AAA", 400)
    dispatcher = build_dispatcher(operations.engine)
    for place in range(0, len(candles), 50):
        for envelope in dispatcher.write(candles[place : place + 50]).envelopes:
            slot.executor.execute([envelope.chunk])
    whole = {**SPEC, "from": "2024-01-01T00:00Z", "strategies": [name.replace("_", "-") for name in names]}
    run = start(operations, parse_spec(whole)).run
    finish(slot, run.id)
    found = compare_live(operations, run.id)
    assert (found.units, found.decisions) == (len(names), len(names) * len(candles))
    assert found.differences == []
    opened = candles[300].open_time
    with operations.changing() as connection:  # a comparison that sees nothing would always pass
        flip = "UPDATE outcomes o SET action = CASE o.action WHEN 1 THEN -1 ELSE 1 END FROM dispatches d "
        connection.exec_driver_sql(
            flip + f"WHERE d.id = o.dispatch_id AND d.open_time = '{opened.isoformat()}' AND o.strategy_id = 1"
        )
    (difference,) = compare_live(operations, run.id).differences
    assert (difference.symbol, difference.open_time) == ("AAA", opened)


def test_two_runs_are_compared_unit_by_unit(operations: Operations, slot: Slot) -> None:
    first = begin(operations, "AAA", grid={"fast": [5, 8]})
    second = start(operations, parse_spec({**SPEC, "grid": {"fast": [8, 9]}, "trading": {"fee_percent": 1.0}})).run
    for run in (first, second):
        finish(slot, run.id)
    found = compare_runs(operations, first.id, second.id)
    assert (len(found.units), found.only_first, found.only_second) == (1, 1, 1)
    (unit,) = found.units
    assert unit.differs and unit.first["fees"] < unit.second["fees"]
    assert not compare_runs(operations, first.id, first.id).units[0].differs


def test_a_candle_that_was_corrected_is_compared_in_its_newest_revision(operations: Operations, slot: Slot) -> None:
    register(operations.engine, definition("cross"))
    candles = walk("AAA", 250)
    corrected = candles[200].model_copy(update={"high": candles[200].high * 1.01})
    dispatcher = build_dispatcher(operations.engine)
    for batch in (candles[:201], [corrected], candles[201:]):
        for envelope in dispatcher.write(batch).envelopes:
            slot.executor.execute([envelope.chunk])
    run = start(operations, parse_spec({**SPEC, "from": "2024-01-09T08:00Z"})).run
    finish(slot, run.id)
    found = compare_live(operations, run.id)
    assert (found.decisions, found.differences) == (50, [])


def test_specifications_are_read_from_files_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_text(
        'strategies = ["cross"]\ntimeframe = "1h"\nfrom = 2024-01-08T00:00:00Z\nto = 2024-03-01T00:00:00Z\n'
        "grid.fast = [5, 8]\n[limits]\nretries = 0\n"
    )
    spec = read_draft(file, {"key": "k", "timeframe": "4h"}).spec
    assert spec is not None
    assert (spec.key, spec.timeframe, spec.limits.retries) == ("k", Timeframe.H4, 0)
    assert parse_spec(json.loads(json.dumps(runs.dump_spec(spec)))) == spec
    with pytest.raises(ConfigurationError, match="expected a readable file"):
        read_draft(tmp_path / "none.toml", {})


@pytest.mark.parametrize("wrong", [float("nan"), "\x00"])
def test_results_that_no_database_takes_fail_their_own_unit(
    operations: Operations, slot: Slot, monkeypatch: pytest.MonkeyPatch, wrong: object
) -> None:
    run = begin(operations, "AAA", grid={"fast": [5, 8, 9]})
    measured = iter([{"trades": 1}, {"trades": wrong}, {"trades": 3}])
    found = SimpleNamespace(model_dump=lambda **_: next(measured))
    monkeypatch.setattr("workers.batch.compute", lambda *_: found)
    finish(slot, run.id)
    assert states(operations, run) == {"succeeded": 2, "failed": 1, "pending": 0, "cancelled": 0}
    with operations.reading() as connection:
        (failed,) = runs.list_units(connection, run.id, UnitState.FAILED, 5)
    assert failed["number"] == 1 and "its results cannot be stored" in failed["error"]


def test_a_ticket_is_free_again_whatever_went_wrong(
    operations: Operations, slot: Slot, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(operations, "AAA")
    with monkeypatch.context() as patch:
        patch.setattr("workers.batch.claim_units", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            slot.batch.work(run.id, 0)
    assert units.take_ticket(connect(), Stint(run.id, 0, 1, "somebody else"))
