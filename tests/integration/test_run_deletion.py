"""Runs that are deleted, by operators and their details by maintenance: what goes, what stays, who is refused."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from app.cli.main import cli
from app.domain.runs import RunState
from app.errors import UnknownRunError, WrongStateError
from app.maintenance.run_details import RunTrimmer
from app.operations import Operations
from app.operations_compare import compare_live
from app.operations_deletion import delete
from app.operations_evaluations import load_selection
from app.operations_report import build_report
from app.operations_runs import cancel, load, pause, resume, retry_failed, start
from app.operations_runs_shown import list_trades
from app.runs.report.document import Document
from app.runs.report.html import to_html
from app.runs.specification import parse_spec
from app.storage import run_deletion
from app.storage.candles import record_candles
from app.storage.schema import metadata
from tests.building import definition, environment, register, walk
from workers.lifecycle import Slot

#: The soft limit of a unit and pytest-timeout's own would use the same timer.
pytestmark = pytest.mark.timeout(120, method="thread")

#: Every table with something of a run in it.
TABLES = ("runs", *(table.name for table in metadata.sorted_tables if "run_id" in table.c))
DETAILS = {"unit_trade_columns", "unit_signals", "unit_equity", "evaluations", "selected", "rejected"}

BACKTEST = {
    "strategies": ["cross", "bad"],
    "timeframe": "1h",
    "from": "2024-01-08T00:00Z",
    "to": "2024-01-22T00:00Z",
    "grid": {"cross": {"fast": [5, 8]}},
}
EVALUATION = {
    "kind": "evaluate",
    "strategies": ["cross", "bad"],
    "timeframe": "1h",
    "to": walk("AAA", 600)[-1].close_time.isoformat(),
    "selection": {"min_edge_percent": 0.0001},
}
KEEP = timedelta(days=90)
LATER = datetime.now(UTC) + KEEP + timedelta(hours=1)


@pytest.fixture
def operations(operations: Operations, monkeypatch: pytest.MonkeyPatch) -> Operations:
    """Of a deployment with two strategies and three series, of which few rows go at a time."""
    monkeypatch.setattr(run_deletion, "BATCH", 2)
    register(operations.engine, definition("cross"), definition("bad", "tests.quant.misbehaving:Raises"))
    with operations.changing() as connection:
        for seed, symbol in enumerate(("AAA", "BBB", "CCC")):
            record_candles(connection, walk(symbol, 600, seed), "test")
    return operations


def run(operations: Operations, slot: Slot, spec: dict[str, Any], **changes: Any) -> int:
    started = start(operations, parse_spec({**spec, **changes})).run
    while slot.batch.work(started.id, 0):
        pass
    return started.id


def rows(operations: Operations, run_id: int) -> dict[str, int]:
    """Count what hangs on a run, by table; those without anything are left out."""
    with operations.reading() as connection:
        counts = {
            table: connection.execute(
                text(f"SELECT count(*) FROM {table} WHERE {'id' if table == 'runs' else 'run_id'} = {run_id}")
            ).scalar_one()
            for table in TABLES
        }
    return {table: number for table, number in counts.items() if number}


def trim(operations: Operations, now: datetime = LATER) -> dict[str, int]:
    trimmer, done = RunTrimmer(operations.engine.begin, KEEP), Counter[str]()
    while (report := trimmer.run_once(now)).has_more:
        done.update(report.done)
    return dict(done)


def trials(document: Document) -> set[int]:
    return {unit.deflated.trials for unit in document.units if unit.deflated}


@pytest.mark.parametrize("spec", [BACKTEST, EVALUATION], ids=["backtest", "evaluate"])
def test_nothing_is_left_of_a_deleted_run_and_all_of_its_neighbour(
    operations: Operations, slot: Slot, spec: dict[str, Any]
) -> None:
    gone, stays = run(operations, slot, spec), run(operations, slot, spec)
    before = rows(operations, stays)
    assert set(rows(operations, gone)) == set(before) and len(before) > 5
    delete(operations, gone)
    assert (rows(operations, gone), rows(operations, stays)) == ({}, before)
    with pytest.raises(UnknownRunError):
        delete(operations, gone)


@pytest.mark.parametrize("batches", range(8))
def test_a_deletion_that_was_killed_midway_is_ended_by_the_next(
    operations: Operations, slot: Slot, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    run_id = run(operations, slot, BACKTEST)
    left, lock = [batches], run_deletion.lock_ended

    def die_after_some(*arguments: Any) -> int:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return lock(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run_deletion, "lock_ended", die_after_some)
        with pytest.raises(KeyboardInterrupt):
            delete(operations, run_id)
    assert load(operations, run_id)[1].is_trimmed == (batches > 1)
    to_html(build_report(operations, run_id))
    delete(operations, run_id)
    assert rows(operations, run_id) == {}


def test_only_ended_runs_are_deleted(operations: Operations, slot: Slot) -> None:
    run_id = start(operations, parse_spec(BACKTEST)).run.id
    with pytest.raises(WrongStateError, match=f"run {run_id} is running.*runs cancel {run_id}"):
        delete(operations, run_id)
    pause(operations, run_id)
    with pytest.raises(WrongStateError, match="is paused"):
        delete(operations, run_id)
    resume(operations, run_id)
    cancel(operations, run_id)
    delete(operations, run_id)
    assert rows(operations, run_id) == {}


def test_a_run_that_goes_on_during_its_deletion_is_left_alone(
    operations: Operations, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run(operations, slot, BACKTEST)
    calls, lock = count(), run_deletion.lock_ended

    def lock_too_late(connection: Any, number: int) -> int:
        if next(calls) == 2:  # before the second batch
            with operations.engine.begin() as other:
                other.execute(text("UPDATE runs SET state = 'running'"))
        return lock(connection, number)

    monkeypatch.setattr(run_deletion, "lock_ended", lock_too_late)
    units = rows(operations, run_id)["units"]
    with pytest.raises(WrongStateError, match="is running"):
        delete(operations, run_id)
    assert rows(operations, run_id)["units"] == units


def test_details_go_with_age_and_every_figure_stays(operations: Operations, slot: Slot) -> None:
    run_id = run(operations, slot, BACKTEST)
    before, kept = build_report(operations, run_id), rows(operations, run_id)
    assert trim(operations, datetime.now(UTC)) == {}
    with operations.reading() as connection:
        assert list_trades(connection, run_id, 0, 5) != []
    assert trim(operations) == {"rows": 18}, "six units with trades, signals and a curve"
    with operations.reading() as connection, pytest.raises(WrongStateError, match="its trades were deleted"):
        list_trades(connection, run_id, 0, 5)
    assert trim(operations) == {}
    assert rows(operations, run_id) == {table: number for table, number in kept.items() if table not in DETAILS}
    after = build_report(operations, run_id)
    assert not before.run.trimmed and after.run.trimmed
    assert [(unit.metrics, unit.deflated) for unit in after.units] == [
        (unit.metrics, unit.deflated) for unit in before.units
    ]
    assert (after.validation, after.run.succeeded, after.heat) == (before.validation, 6, before.heat)
    assert "Details were deleted" in to_html(after) and "Details were deleted" not in to_html(before)
    with pytest.raises(WrongStateError, match="signals were deleted"):
        compare_live(operations, run_id)
    with pytest.raises(WrongStateError, match="start a new run"):
        retry_failed(operations, run_id)


def test_trials_of_a_trimmed_run_count_as_before_and_those_of_a_deleted_one_no_longer(
    operations: Operations, slot: Slot
) -> None:
    first = run(operations, slot, BACKTEST)
    second = run(operations, slot, BACKTEST, grid={"cross": {"fast": [9]}})
    before = build_report(operations, second)
    trim(operations)
    after = build_report(operations, second)
    assert [unit.deflated for unit in after.units] == [unit.deflated for unit in before.units]
    assert trials(after) == {3 * 2 + 3 + 3}, "two and one of cross, and the one that fails, on three symbols"
    delete(operations, first)
    assert trials(build_report(operations, second)) == {3 + 3}


def test_what_was_selected_stays_when_answers_and_rejections_go(operations: Operations, slot: Slot) -> None:
    run_id = run(operations, slot, EVALUATION)
    before, report = load_selection(operations, run_id, 100), build_report(operations, run_id)
    assert before.selected and before.rejected
    kept = rows(operations, run_id)
    assert trim(operations)["rows"] > 0
    assert rows(operations, run_id) == {table: number for table, number in kept.items() if table not in DETAILS}
    after = load_selection(operations, run_id, 100)
    assert (after.selected, after.summary, after.rejected) == (before.selected, before.summary, [])
    trimmed = build_report(operations, run_id)
    assert trimmed.selection is not None and report.selection is not None
    assert trimmed.selection.selected == report.selection.selected
    assert trimmed.selection.reasons == report.selection.reasons != {}
    assert trimmed.run.trimmed and trimmed.run.failed == 3
    page = to_html(trimmed)
    assert "no longer stored" in page and f"{len(report.selection.rejected)} rejected" in page
    assert trim(operations) == {}


def test_runs_without_details_are_not_trimmed(operations: Operations, slot: Slot) -> None:
    never_began = start(operations, parse_spec(BACKTEST)).run.id
    cancel(operations, never_began)
    failed = run(operations, slot, BACKTEST, strategies=["bad"], grid={})
    assert trim(operations) == {}
    assert not load(operations, never_began)[1].is_trimmed and not load(operations, failed)[1].is_trimmed
    assert retry_failed(operations, failed) == 3


def test_the_command(operations: Operations, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(operations.settings).items():
        monkeypatch.setenv(name, value)

    def call(*arguments: object, answer: str | None = None, terminal: bool = False) -> Any:
        monkeypatch.setattr("app.cli.deletion.is_terminal", lambda: terminal)
        return CliRunner().invoke(cli, ["runs", "delete", *map(str, arguments)], input=answer)

    ended, other = run(operations, slot, BACKTEST), run(operations, slot, BACKTEST)
    running = start(operations, parse_spec(BACKTEST)).run.id
    assert isinstance(call(ended, running).exception, WrongStateError)
    assert call(ended, answer="n\n", terminal=True).exit_code == 1
    assert load(operations, ended)[0].state is RunState.COMPLETE, "nothing was deleted until now"
    done = call(ended, 99, "--json")
    assert json.loads(done.stdout) == {"deleted": [{"run": ended, "units": 9}], "unknown": [99]}
    assert "9 units no longer count" in call(other, answer="y\n", terminal=True).output
    assert isinstance(call(other, "--yes").exception, UnknownRunError)
    assert rows(operations, ended) == rows(operations, other) == {}
