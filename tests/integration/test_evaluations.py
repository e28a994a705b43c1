"""Evaluate runs on real servers: the latest candle of every market, answered as live would, selected once."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert, text
from typer.testing import CliRunner

from app.cli.main import cli
from app.domain.runs import RunState
from app.errors import ConfigurationError
from app.operations import Operations
from app.operations_evaluations import load_selection
from app.operations_runs import cancel, retry_failed, start
from app.runs.answers import ANSWER
from app.runs.specification import parse_spec
from app.settings import Settings
from app.storage import runs
from app.storage.candles import record_candles
from app.storage.listings_runs import list_evaluations
from app.storage.run_closing import close_run
from app.storage.runs import Run
from app.storage.schema import positions
from app.storage.slices import SliceEnd, adopt_slice, claim_slices, record_slices, split_slice
from app.storage.units import Stint, take_ticket
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.registry import Registry
from tests.building import START, definition, environment, register, walk
from tests.integration.ledger import driver_of, rows, together
from tests.waiting import wait_until
from workers.lifecycle import Slot

#: The soft limit of a unit and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

COUNT = 300
SPEC = {
    "kind": "evaluate",
    "strategies": ["cross"],
    "timeframe": "1h",
    "to": (START + COUNT * timedelta(hours=1)).isoformat(),
    "selection": {"min_edge_percent": 0.05},
}


def store(engine: Engine, *symbols: str, count: int = COUNT) -> None:
    for seed, symbol in enumerate(symbols):
        with engine.begin() as connection:
            record_candles(connection, walk(symbol, count, seed), "test")


def finish(slot: Slot, run_id: int) -> None:
    while slot.batch.work(run_id, 0):
        pass


def answers(operations: Operations, run_id: int) -> dict[tuple[str, str], dict[str, Any]]:
    with operations.reading() as connection:
        return {(row["symbol"], row["strategy"]): row for row in list_evaluations(connection, run_id, None, 1000)}


@pytest.mark.parametrize("method", ["auto", "windows"])
def test_every_market_is_answered_as_live_answers_it(
    engine: Engine, operations: Operations, slot: Slot, settings: Settings, method: str
) -> None:
    names = {"cross": "ema_cross", "bands": "bollinger_reversion"}
    register(engine, *(definition(name, implementation) for name, implementation in names.items()))
    symbols = [f"M{number}" for number in range(7)]
    store(engine, *symbols)
    spec = {**SPEC, "strategies": list(names), "method": method, "limits": {"batch_size": 3}}
    run = start(operations, parse_spec(spec)).run
    finish(slot, run.id)
    found = answers(operations, run.id)
    assert len(found) == len(symbols) * len(names)
    for seed, symbol in enumerate(symbols):
        window = Bars.from_candles(walk(symbol, COUNT, seed)).last(settings.worker.window)
        for name, implementation in names.items():
            live = evaluate(Registry(()).create(implementation, {}), window)
            row = found[symbol, name]
            assert (row["action"], row["price"], row["open_time"]) == (
                live.action,
                window.close[-1],
                START + (COUNT - 1) * timedelta(hours=1),
            )
            assert (row["strength"], row["edge_percent"]) == pytest.approx((live.strength, live.edge), rel=1e-6)
            if method == "windows":
                assert (row["strength"], row["edge_percent"]) == (live.strength, live.edge)


def test_a_run_ends_with_its_selection_and_validation(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("cross"))
    store(engine, *(f"M{number}" for number in range(9)))
    run = start(operations, parse_spec(SPEC)).run
    finish(slot, run.id)
    with operations.reading() as connection:
        ended, progress = runs.load_run(connection, run.id), runs.load_progress(connection, run.id)
    assert (ended.state, progress.units["succeeded"], progress.total) == (RunState.COMPLETE, 9, 9)
    report = load_selection(operations, run.id, 100)
    assert len(report.selected) == 2  # all of one category
    assert len(report.selected) + len(report.rejected) == 9
    assert {row["reason"] for row in report.rejected} <= {"category_full", "edge_below_minimum"}
    edges = [row["edge_percent"] for row in report.selected]
    assert edges == sorted(edges, reverse=True)
    assert ended.validation is not None
    assert ended.validation["figures"]["succeeded"] == 9
    assert {check["name"] for check in ended.validation["checks"] if not check["passed"]} <= {"throughput"}


def reasons(operations: Operations, run: Run) -> dict[str, str]:
    return {row["symbol"]: row["reason"] for row in load_selection(operations, run.id, 100).rejected}


def test_what_cannot_be_evaluated_is_rejected_with_its_reason(
    engine: Engine, operations: Operations, slot: Slot
) -> None:
    params = {"symbol": "BAD"}
    register(engine, definition("picky", "tests.quant.mortal:FailsOn", params=params))
    store(engine, "BAD", "GOOD")
    store(engine, "OLD", count=COUNT - 5)
    spec = {**SPEC, "strategies": ["picky"], "selection": {"min_edge_percent": 30}}
    run = start(operations, parse_spec(spec)).run
    assert any("OLD: rejected as stale" in warning for warning in run.warnings)
    finish(slot, run.id)
    assert reasons(operations, run) == {"BAD": "failed", "GOOD": "edge_below_minimum", "OLD": "stale"}
    failed = answers(operations, run.id)["BAD", "picky"]
    assert (failed["state"], failed["attempts"], failed["error_class"], failed["error"]) == (
        "failed",
        3,
        "ValueError",
        "not this one",
    )
    with operations.reading() as connection:
        record = runs.load_run(connection, run.id).validation
    assert record is not None
    assert (record["error_count"], record["figures"]["failed"], record["figures"]["succeeded"]) == (1, 1, 2)
    assert record["figures"]["errors"][0]["symbol"] == "BAD"


def test_an_error_without_a_message_says_its_class(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("interrupts", "tests.quant.unstorable:Interrupt"))
    store(engine, "AAA")
    run = start(operations, parse_spec({**SPEC, "strategies": ["interrupts"]})).run
    finish(slot, run.id)
    failed = answers(operations, run.id)["AAA", "interrupts"]
    assert (failed["error_class"], failed["error"]) == ("KeyboardInterrupt", "KeyboardInterrupt without a message")


def test_a_market_without_enough_history_is_not_asked(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("cross"))
    with engine.begin() as connection:
        record_candles(connection, walk("YOUNG", COUNT)[-30:], "test")
    run = start(operations, parse_spec(SPEC)).run
    finish(slot, run.id)
    assert reasons(operations, run) == {"YOUNG": "short_history"}


def test_a_strategy_that_states_no_edge_selects_nothing(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("follows", "tests.quant.trading:Follows"))
    store(engine, "AAA")
    run = start(operations, parse_spec({**SPEC, "strategies": ["follows"]})).run
    finish(slot, run.id)
    assert reasons(operations, run) == {"AAA": "no_edge"}


def test_failed_units_are_tried_again_and_the_selection_is_made_anew(
    engine: Engine, operations: Operations, slot: Slot, tmp_path: Path
) -> None:
    params = {"folder": str(tmp_path), "failures": 2}
    register(engine, definition("flaky", "tests.quant.misbehaving:Flaky", params=params), definition("cross"))
    store(engine, "AAA")
    run = start(operations, parse_spec({**SPEC, "strategies": ["flaky", "cross"], "limits": {"retries": 1}})).run
    finish(slot, run.id)
    assert answers(operations, run.id)["AAA", "flaky"]["state"] == "failed"
    assert retry_failed(operations, run.id) == 1
    finish(slot, run.id)
    row = answers(operations, run.id)["AAA", "flaky"]
    assert (row["state"], row["action"], row["error"]) == ("succeeded", 1, None)
    with operations.reading() as connection:
        progress = runs.load_progress(connection, run.id)
    assert progress.units == {"succeeded": 2, "failed": 0, "pending": 0, "cancelled": 0}
    report = load_selection(operations, run.id, 100)
    assert [row["strategy"] for row in report.selected] == ["cross"]
    assert report.summary["rejected"] == {"no_edge": 1}


def test_open_positions_are_respected(engine: Engine, operations: Operations, slot: Slot) -> None:
    (strategy,) = register(engine, definition("picky", "tests.quant.mortal:FailsOn", params={"symbol": ""}))
    store(engine, "AAA", "BBB")
    open_position(engine, strategy.id, "AAA", size_percent=12.0, risk_percent=12.0, entry_price=100.0, stop=95.0)
    # the risk cap refused its order: the strategy follows it, the portfolio does not hold it
    open_position(engine, strategy.id, "BBB", size_percent=12.0, entry_price=100.0, stop=95.0)
    run = start(operations, parse_spec({**SPEC, "strategies": ["picky"]})).run
    finish(slot, run.id)
    report = load_selection(operations, run.id, 100)
    assert [row["symbol"] for row in report.selected] == ["BBB"]
    assert reasons(operations, run) == {"AAA": "already_held"}
    assert report.summary["held"] == [
        {"symbol": "AAA", "category": "general", "size_percent": 12.0, "risk_percent": pytest.approx(0.6)}
    ]
    assert report.summary["risk_percent"] == pytest.approx(0.6 + 0.5)
    assert report.summary["exposure_percent"] == pytest.approx(12.0 + 10.0)


def open_position(engine: Engine, strategy_id: int, symbol: str, **values: Any) -> None:
    row: dict[str, Any] = {
        **{"strategy_id": strategy_id, "symbol": symbol, "timeframe": "1h", "strategy_revision": 1, "side": 1},
        **{"quantity": 1.0, "entry_fee": 0.0, "best": 100.0, "barred": 0, "profit": 0.0, "fees": 0.0, "trades": 0},
        **{"applied_open_time": START, "version": 1, "correlation_id": "c"},
        **values,
    }
    with engine.begin() as connection:
        connection.execute(insert(positions).values(**row))


def test_an_earlier_moment_is_seen_as_it_was(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("cross"))
    store(engine, "AAA")
    until = START + 200 * timedelta(hours=1)
    run = start(operations, parse_spec({**SPEC, "to": until.isoformat()})).run
    finish(slot, run.id)
    row = answers(operations, run.id)["AAA", "cross"]
    assert (row["open_time"], row["price"]) == (until - timedelta(hours=1), walk("AAA", COUNT, 0)[199].close)


def test_markets_that_are_all_stale_start_nothing(engine: Engine, operations: Operations) -> None:
    register(engine, definition("cross"))
    store(engine, "AAA")
    as_of_now = {name: value for name, value in SPEC.items() if name != "to"}
    with pytest.raises(ConfigurationError, match="latest candles of 1 series are older"):
        start(operations, parse_spec(as_of_now))
    assert rows(engine, "SELECT count(*) FROM runs") == [(0,)]


def test_the_slices_of_a_dead_slot_are_cut_into_units_and_counted_once(
    engine: Engine, operations: Operations, slot: Slot
) -> None:
    register(engine, definition("cross"), definition("bands", "bollinger_reversion"))
    store(engine, *(f"M{number}" for number in range(5)))
    run = start(operations, parse_spec({**SPEC, "strategies": ["cross", "bands"], "limits": {"batch_size": 3}})).run
    stint = Stint(run.id, 1, 4711, "dead")
    with driver_of(engine) as driver:
        assert take_ticket(driver, stint)
        (claimed,) = claim_slices(driver, stint.values, 1)
    assert len(claimed.slice.symbols) == 3
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1"
    wait_until(lambda: rows(engine, held) == [(0,)], "the lock of the closed connection is gone")
    finish(slot, run.id)
    sizes = (
        "SELECT cardinality(symbols) * cardinality(variants), attempts, count(*) FROM slices GROUP BY 1, 2 ORDER BY 1"
    )
    assert rows(engine, sizes) == [(1, 1, 6), (4, 1, 1)]
    assert len(answers(operations, run.id)) == 10
    with driver_of(engine) as driver:
        late = SliceEnd(claimed.slice, 1, [np.zeros(3, ANSWER)] * 2, [], 0.0, 0.0)
        assert record_slices(driver, stint.values, [late], 0) == 0
    assert rows(engine, "SELECT sum(cardinality(status)) FROM evaluations") == [(10,)]


def test_a_unit_that_was_never_alone_in_a_dead_slot_has_its_tries(
    engine: Engine, operations: Operations, slot: Slot
) -> None:
    register(engine, definition("cross"), definition("bands", "bollinger_reversion"))
    store(engine, *(f"M{number}" for number in range(4)))
    run = start(operations, parse_spec({**SPEC, "strategies": ["cross", "bands"], "limits": {"retries": 0}})).run
    for claim in (1, 2):  # a slot dies with the slice, and one with some of its units
        stint = Stint(run.id, claim, claim, "dead")
        with driver_of(engine) as driver:
            assert take_ticket(driver, stint)
            if claim == 2:
                whole = adopt_slice(driver, stint.values)
                assert whole is not None
                split_slice(driver, stint.values, whole.slice.number)
            assert claim_slices(driver, stint.values, 100)
    finish(slot, run.id)
    with operations.reading() as connection:
        progress = runs.load_progress(connection, run.id)
    assert (progress.units["succeeded"], progress.units["failed"]) == (8, 0)


def test_a_slow_slice_is_recorded_as_far_as_it_came(
    engine: Engine, operations: Operations, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.evaluation.STINT_S", 0.05)
    params = {"file": "/dev/null", "who": "me", "pause_ms": 30.0}
    register(engine, definition("paced", "tests.quant.pacing:Paced", params=params))
    store(engine, *(f"M{number}" for number in range(9)))
    run = start(operations, parse_spec({**SPEC, "strategies": ["paced"]})).run
    finish(slot, run.id)
    assert rows(engine, "SELECT sum(cardinality(symbols)), count(*) > 1, max(attempts) FROM slices") == [(9, True, 1)]
    found = answers(operations, run.id)
    assert {symbol for symbol, _ in found} == {f"M{number}" for number in range(9)}
    prices = {symbol: row["price"] for (symbol, _), row in found.items()}
    assert prices == {f"M{seed}": walk("WALK", COUNT, seed)[-1].close for seed in range(9)}


def test_a_run_is_closed_once_whoever_finds_it(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("cross"))
    store(engine, "AAA", "BBB")
    run = start(operations, parse_spec(SPEC)).run
    finish(slot, run.id)
    before = load_selection(operations, run.id, 100)
    with engine.begin() as connection:
        connection.execute(text("UPDATE runs SET state = 'running'"))

    def close() -> bool:
        with driver_of(engine) as driver:
            return close_run(driver, run.id)

    assert sum(together(*[close] * 6)) == 1
    assert load_selection(operations, run.id, 100) == before


def test_a_cancelled_run_selects_nothing(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("cross"))
    store(engine, "AAA")
    run = start(operations, parse_spec(SPEC)).run
    cancel(operations, run.id)
    finish(slot, run.id)
    with operations.reading() as connection:
        progress = runs.load_progress(connection, run.id)
    assert (progress.state, progress.units["cancelled"]) == (RunState.CANCELLED, 1)
    assert answers(operations, run.id) == {}
    with pytest.raises(ConfigurationError, match="found: kind evaluate, cancelled"):
        load_selection(operations, run.id, 10)
    with operations.reading() as connection:
        validation = runs.load_run(connection, run.id).validation
    assert validation is not None and not validation["passed"]
    assert validation["checks"][0]["found"] == "0 succeeded, 0 failed, 1 cancelled"


def test_a_backtest_has_a_validation_record_too(engine: Engine, operations: Operations, slot: Slot) -> None:
    register(engine, definition("cross"))
    store(engine, "AAA")
    spec = {"strategies": ["cross"], "timeframe": "1h", "from": START.isoformat(), "to": SPEC["to"]}
    run = start(operations, parse_spec(spec)).run
    finish(slot, run.id)
    with operations.reading() as connection:
        ended = runs.load_run(connection, run.id)
    assert ended.validation is not None and ended.selection is None
    figures = ended.validation["figures"]
    assert (figures["units"], figures["succeeded"], figures["failed"]) == (1, 1, 0)
    assert figures["elapsed_s"] > 0 < figures["memory_mb"]
    assert (figures["markets"], figures["evaluations"]) == (1, COUNT)
    assert retry_failed(operations, run.id) == 0
    with operations.reading() as connection:
        assert runs.load_run(connection, run.id) == ended


def test_memory_is_that_of_slots_that_lived_together(engine: Engine, operations: Operations) -> None:
    register(engine, definition("cross"))
    store(engine, "AAA", "BBB", "CCC", "DDD")
    spec = {"strategies": ["cross"], "timeframe": "1h", "from": START.isoformat(), "to": SPEC["to"]}
    run = start(operations, parse_spec(spec)).run
    # a and b beside each other, c in the place of a that died, d when all were gone
    lives = {"a": (0, 10, 100), "b": (0, 30, 150), "c": (12, 20, 120), "d": (40, 50, 200)}
    with engine.begin() as connection:
        for number, (worker, (first, last, memory_mb)) in enumerate(lives.items()):
            values = {"number": number, "worker": worker, "mb": memory_mb}
            moments = {"first": START + timedelta(seconds=first), "last": START + timedelta(seconds=last)}
            ended = "UPDATE units SET state = 'failed', worker = :worker, memory_mb = :mb, started_at = :first, "
            where = "finished_at = :last, error_class = 'E', error = 'e' WHERE number = :number"
            connection.execute(text(ended + where), {**values, **moments})
    with driver_of(engine) as driver:
        assert close_run(driver, run.id)
    with operations.reading() as connection:
        validation = runs.load_run(connection, run.id).validation
    assert validation is not None and validation["figures"]["memory_mb"] == 270.0


def test_selection_and_answers_are_shown(
    engine: Engine, operations: Operations, slot: Slot, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(engine, definition("cross"))
    store(engine, "AAA", "BBB", "CCC")
    run = start(operations, parse_spec(SPEC)).run
    finish(slot, run.id)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("app.cli.session.configure_logging", lambda _: None)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["runs", *arguments])
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    document = json.loads(call("selection", str(run.id), "--json"))
    assert len(document["positions"]) + len(document["rejections"]) == 3
    assert document["rules"]["min_edge_percent"] == 0.05
    shown = call("selection", str(run.id))
    assert all(row["symbol"] in shown for row in document["positions"])
    assert "in the market" in shown
    assert "diversification" in call("show", str(run.id))
    listed = json.loads(call("show", str(run.id), "--json"))
    assert listed["validation"]["figures"]["units"] == 3 == len(listed["units_listed"])
