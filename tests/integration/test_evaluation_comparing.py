"""Evaluate runs compared: each answer with the outcome that live recorded, two runs unit by unit, nothing in green."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import cli
from app.domain.candles import Candle
from app.errors import ConfigurationError, WrongStateError
from app.operations import Operations
from app.operations_compare import LiveComparison, compare_live, find_kind
from app.operations_compare_evaluations import TOLERANCE, compare_evaluations, differing_columns
from app.operations_runs import cancel, start
from app.runs.specification import parse_spec
from app.settings import Settings
from app.storage.candles import record_candles
from app.storage.evaluations import SaidTwice
from app.strategies.builtin import BUILTINS
from tests.building import START, definition, environment, register, walk
from tests.integration.ledger import build_dispatcher
from workers.lifecycle import Slot

#: The soft limit of a unit and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

HOUR = timedelta(hours=1)
COUNT = 600
#: Newest candles on which live decided.
DECIDED = 8
NAMES = {name.replace("_", "-"): name for name in sorted(BUILTINS)}
SYMBOLS = ("AAA", "BBB", "CCC")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"worker": settings.worker.model_copy(update={"window": 512})})


def decide(operations: Operations, slot: Slot, candles: list[Candle]) -> None:
    """Have live decide on candles."""
    for envelope in build_dispatcher(operations.engine).write(candles).envelopes:
        slot.executor.execute([envelope.chunk])


def evaluate(operations: Operations, slot: Slot, candles: int = COUNT, **changes: Any) -> int:
    """Evaluate as of the end of so many candles."""
    spec = {"kind": "evaluate", "timeframe": "1h", "to": (START + candles * HOUR).isoformat(), **changes}
    run = start(operations, parse_spec({"selection": {"min_edge_percent": 0.05}, **spec})).run
    while slot.batch.work(run.id, 0):
        pass
    return run.id


def change(operations: Operations, statement: str) -> None:
    with operations.changing() as connection:
        connection.exec_driver_sql(statement)


def said(found: LiveComparison) -> list[SaidTwice]:
    return [each for each in found.differences if isinstance(each, SaidTwice)]


@pytest.fixture
def decided(operations: Operations, slot: Slot) -> None:
    """Live decided on the newest candles of three markets with every built-in."""
    register(operations.engine, *(definition(name, implementation) for name, implementation in NAMES.items()))
    for seed, symbol in enumerate(SYMBOLS):
        candles = walk(symbol, COUNT, seed)
        with operations.changing() as connection:
            record_candles(connection, candles[:-DECIDED], "test")
        decide(operations, slot, candles[-DECIDED:])


@pytest.mark.usefixtures("decided")
@pytest.mark.parametrize("method", ["auto", "windows"])
def test_an_evaluate_run_answers_as_live_did(operations: Operations, slot: Slot, method: str) -> None:
    actions = set()
    for names in (list(NAMES), ["ema-cross"]):  # alone it reads fewer candles
        run = evaluate(operations, slot, strategies=names, method=method)
        assert (compare_live(operations, run).decisions, compare_live(operations, run).differences) == (
            len(names) * 3,
            [],
        )
    for candles in range(COUNT - DECIDED + 1, COUNT + 1):
        run = evaluate(operations, slot, candles, strategies=list(NAMES), method=method)
        found = compare_live(operations, run)
        assert (found.units, found.decisions) == (len(NAMES) * len(SYMBOLS),) * 2
        assert found.differences == []
        with operations.reading() as connection:
            actions |= set(connection.exec_driver_sql("SELECT unnest(action) FROM evaluations").scalars())
    assert actions == {-1, 0, 1}


@pytest.mark.usefixtures("decided")
@pytest.mark.parametrize(
    ("tampered", "column"),
    [
        ("action = CASE action WHEN 1 THEN -1 ELSE 1 END", "action"),
        ("strength = strength + 2e-7", "strength"),
        ("edge = edge * (1 + 2e-7)", "edge_percent"),
        ("edge = NULL", "edge_percent"),
        ("detail = jsonb_set(detail, '{stop}', to_jsonb(CAST(detail->>'stop' AS float8) * (1 + 2e-7)))", "stop"),
        ("detail = detail - 'target'", "target"),
    ],
)
def test_what_live_said_differently_is_found(operations: Operations, slot: Slot, tampered: str, column: str) -> None:
    (levels,) = register(operations.engine, definition("levels", "tests.quant.mortal:FailsOn", params={"symbol": ""}))
    candle = walk("AAA", COUNT + 1, 0)[-1]
    decide(operations, slot, [candle])
    run = evaluate(
        operations, slot, COUNT + 1, strategies=[*NAMES, "levels"], method="windows", max_age_candles=DECIDED
    )
    assert compare_live(operations, run).differences == []
    with operations.changing() as connection:
        connection.exec_driver_sql(
            'UPDATE outcomes SET detail = \'{"stop": 90.0, "target": 120.0}\', edge = 20.0, strength = 0.5 '
            f"WHERE strategy_id = {levels.id}"
        )
        connection.exec_driver_sql(
            "UPDATE evaluations e SET stop = array_fill(90.0::float8, ARRAY[cardinality(status)]),"
            " target = array_fill(120.0::float8, ARRAY[cardinality(status)]),"
            " edge = array_fill(20.0::float8, ARRAY[cardinality(status)]),"
            " strength = array_fill(0.5::float8, ARRAY[cardinality(status)])"
            " FROM variants v WHERE v.run_id = e.run_id AND v.number = e.variant AND v.strategy = 'levels'"
        )
    assert compare_live(operations, run).differences == []
    change(operations, f"UPDATE outcomes SET {tampered} WHERE strategy_id = {levels.id}")
    (difference,) = said(compare_live(operations, run))
    assert (difference.strategy, difference.symbol, difference.open_time) == ("levels", "AAA", candle.open_time)
    assert differing_columns(difference, TOLERANCE) == [column]


def test_a_corrected_candle_is_compared_in_its_newest_revision(operations: Operations, slot: Slot) -> None:
    register(operations.engine, definition("cross"))
    *past, last = walk("AAA", COUNT, 0)
    with operations.changing() as connection:
        record_candles(connection, past, "test")
    corrected = last.model_copy(update={"high": last.high * 1.3, "close": last.high * 1.3})
    decide(operations, slot, [last])
    early = evaluate(operations, slot, strategies=["cross"])
    assert compare_live(operations, early).differences == []
    decide(operations, slot, [corrected])
    found = compare_live(operations, evaluate(operations, slot, strategies=["cross"]))
    assert (found.decisions, found.differences) == (1, [])
    assert len(compare_live(operations, early).differences) == 1, "it saw the candle before its correction"


@pytest.fixture
def call(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("app.cli.session.configure_logging", lambda _: None)

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(cli, ["runs", "compare", *map(str, arguments)])

    return call


def test_nothing_in_common_is_said_and_is_no_success(operations: Operations, slot: Slot, call: Any) -> None:
    register(operations.engine, definition("cross"), definition("bands", "bollinger_reversion"))
    for seed, symbol in enumerate(("AAA", "BBB")):
        with operations.changing() as connection:
            record_candles(connection, walk(symbol, COUNT, seed), "test")
    one = evaluate(operations, slot, strategies=["cross"])
    other = evaluate(operations, slot, strategies=["bands"])
    grid = evaluate(operations, slot, strategies=["cross"], grid={"fast": [5]})
    cases = (
        ((one, "--live"), "live recorded no decision"),
        ((grid, "--live"), "no unit succeeded with a revision"),
        ((one, other), "no unit in common"),
    )
    for arguments, reason in cases:
        told = call(*arguments)
        assert told.exit_code == 1 and "Nothing was compared" in told.output and reason in told.output
        as_json = call(*arguments, "--json")
        assert as_json.exit_code == 1 and json.loads(as_json.stdout)["listed"] == []


def test_two_runs_are_compared_unit_by_unit(operations: Operations, slot: Slot, call: Any) -> None:
    register(operations.engine, definition("cross"), definition("bands", "bollinger_reversion"))
    for seed, symbol in enumerate(SYMBOLS):
        with operations.changing() as connection:
            record_candles(connection, walk(symbol, COUNT, seed), "test")
    first = evaluate(operations, slot, strategies=["cross", "bands"])
    same = evaluate(operations, slot, strategies=["cross", "bands"], method="windows")
    assert compare_evaluations(operations, first, same).differing == []
    fewer = evaluate(operations, slot, strategies=["cross"], selection={"min_edge_percent": 0.05, "per_category": 1})
    found = compare_evaluations(operations, first, fewer)
    assert (len(found.units), found.only_first, found.only_second) == (3, 3, 0)
    counted = found.count()
    assert (counted["differing"], counted["selected_only_first"], counted["selected_only_second"]) == (0, 1, 0)
    (lost,) = found.differing
    assert lost.is_selected == (True, False)
    earlier = evaluate(operations, slot, COUNT - 100, strategies=["cross", "bands"])
    counted = compare_evaluations(operations, first, earlier).count()
    assert (counted["common"], counted["other_candle"]) == (6, 6) and counted["differing"] > 0
    told = call(first, fewer)
    assert told.exit_code == 0 and lost.symbol in told.output
    assert "1 selected in the first run only" in told.output
    assert json.loads(call(first, fewer, "--json").stdout)["listed"][0]["symbol"] == lost.symbol
    assert "action 1" in call(first, earlier).output


def test_what_cannot_be_compared_is_refused(operations: Operations, slot: Slot) -> None:
    register(operations.engine, definition("cross"))
    with operations.changing() as connection:
        record_candles(connection, walk("AAA", COUNT), "test")
    evaluated = evaluate(operations, slot, strategies=["cross"])
    backtest = start(
        operations,
        parse_spec({"strategies": ["cross"], "timeframe": "1h", "from": START.isoformat(), "to": "2024-01-10T00:00Z"}),
    ).run.id
    with pytest.raises(ConfigurationError, match=f"run {evaluated} of kind evaluate and run {backtest} of kind backt"):
        find_kind(operations, evaluated, backtest)
    spec = {"kind": "evaluate", "strategies": ["cross"], "timeframe": "1h", "to": (START + COUNT * HOUR).isoformat()}
    waiting = start(operations, parse_spec(spec)).run.id
    cancel(operations, waiting)
    with pytest.raises(WrongStateError, match="is cancelled: only a run that is complete"):
        compare_evaluations(operations, evaluated, waiting)
    change(operations, f"DELETE FROM evaluations WHERE run_id = {evaluated}")
    with pytest.raises(WrongStateError, match="answers were deleted"):
        compare_evaluations(operations, evaluated, evaluated)
    with pytest.raises(WrongStateError, match="deleted with its details"):
        compare_live(operations, evaluated)
