"""`candlefleet runs`: what it prints, refuses and returns, on real servers and with the node that it starts itself."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.broker import BATCH_QUEUE
from app.domain.runs import RunState
from app.errors import SpecificationError, WrongStateError
from app.operations import Operations
from app.operations_runs import Watch, cancel, pause, resume
from app.storage.candles import record_candles
from app.storage.runs import Progress
from tests.building import walk
from tests.integration.stage import Run, Stage

RANGE = ("--timeframe", "1h", "--from", "2024-01-08", "--to", "2024-02-01")


@pytest.fixture
def stage(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    monkeypatch.setenv("CANDLEFLEET_HOME", str(tmp_path))
    stage.add("cross")
    with stage.operations.changing() as connection:
        record_candles(connection, walk("AAA", 800), "test")
    return stage


def document(run: Run, *arguments: Any, code: int = 0) -> Any:
    result = run("runs", *arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def start(run: Run, *arguments: Any) -> Any:
    return document(run, "start", "--strategy", "cross", *RANGE, *arguments)


@pytest.mark.usefixtures("stage")
def test_a_run_from_its_specification_to_its_figures(run: Run, tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(
        'strategies = ["cross"]\ntimeframe = "1h"\nfrom = 2024-01-08\nto = 2024-02-01\ngrid.fast = [5, 8]\n'
    )
    dry = document(run, "start", spec, "--dry-run")
    assert (dry["units"], dry["variants"], dry["candles"], dry["work_s"]) == (2, 2, 2 * 576, None)
    assert document(run, "list") == []
    done = document(run, "start", spec, "--wait")
    assert (done["state"], done["succeeded"], done["candles_done"]) == ("complete", 2, 1152)
    assert done["finished_at"] is not None and done["validation"]["checks"]
    shown = document(run, "show", done["id"])
    assert {unit["params"]["fast"] for unit in shown["units_listed"]} == {5, 8}
    assert shown["spec"]["grid"] == {"fast": [5, 8]}
    best = shown["units_listed"][0]
    trades = document(run, "trades", done["id"], "--unit", best["number"])
    assert [trade["number"] for trade in trades] == list(range(best["metrics"]["trades"])) != []
    assert sum(trade["fees"] for trade in trades) == pytest.approx(best["metrics"]["fees"])
    assert "has no unit 7" in str(run("runs", "trades", done["id"], "--unit", 7).exception)
    page = ("trades", done["id"], "--unit", best["number"], "--limit", 2, "--offset", 1)
    assert document(run, *page) == trades[1:3]
    second = document(run, "show", done["id"], "--offset", 1)["units_listed"]
    assert [unit["number"] for unit in second] == [shown["units_listed"][1]["number"]]
    assert "The best return first" in run("runs", "show", done["id"]).output
    assert "2 of 2 units, the best Sharpe ratio first" in run("runs", "report", done["id"]).output
    assert document(run, "compare", done["id"], done["id"])["differing"] == 0
    assert document(run, "compare", done["id"], "--live", code=1)["decisions"] == 0
    assert "Nothing was compared" in run("runs", "compare", done["id"], "--live").output
    watched = document(run, "watch", done["id"])
    assert watched == {**done, "slots": 0}
    assert document(run, "start", spec, "--dry-run")["work_s"] > 0
    for command in (("list",), ("show", done["id"]), ("watch", done["id"]), ("compare", done["id"], done["id"])):
        assert run("runs", *command).exit_code == 0


def test_a_failed_unit_is_exit_code_one_and_can_be_tried_again(stage: Stage, run: Run) -> None:
    stage.add("bad", "tests.quant.misbehaving:Raises")
    failed = run("runs", "start", "--strategy", "bad", *RANGE, "--wait", "--json")
    assert failed.exit_code == 1 and json.loads(failed.stdout)["failed"] == 1
    told = run("runs", "show", 1)
    assert "no idea what to do" in told.output
    assert run("runs", "retry", 1, "--failed").exit_code == 0
    assert document(run, "list")[0]["pending"] == 1
    assert "ValueError" not in run("runs", "show", 1, "--json").stdout


def test_a_run_without_a_node_waits_and_is_steered(stage: Stage, run: Run) -> None:
    waiting = start(run, "--grid", "fast=5,8", "--key", "k")
    assert (waiting["state"], waiting["pending"]) == ("running", 2)
    assert start(run, "--grid", "fast=5,8", "--key", "k")["id"] == waiting["id"]
    assert len(stage.raw(BATCH_QUEUE)) == 2
    assert "no node serves runs, and there waits run 1 (2 units)" in run("doctor", "--json").stdout
    for command, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        for _ in range(2):
            assert run("runs", command, waiting["id"]).exit_code == 0
            assert document(run, command, waiting["id"])["state"] == state
        assert document(run, "list")[0]["state"] == state
    assert len(stage.raw(BATCH_QUEUE)) == 2
    for command in ("pause", "resume"):
        refused = run("runs", command, waiting["id"])
        assert (refused.exit_code, type(refused.exception)) == (1, WrongStateError)
        assert "run 1 is cancelled: it has ended and cannot become" in str(refused.exception)
    assert document(run, "retry", waiting["id"], "--failed") == {"run": waiting["id"], "units": 0}


Act = Callable[[Operations, int], object]


def acting(monkeypatch: pytest.MonkeyPatch, *acts: Act) -> list[RunState]:
    """Have things happen between the looks of whoever watches a run; return what is seen."""
    seen, look, waiting = list[RunState](), Watch.look, list(acts)

    def look_and_act(watch: Watch, now: datetime) -> Progress:
        seen.append((progress := look(watch, now)).state)
        if waiting:
            waiting.pop(0)(watch._operations, watch._run_id)
        return progress

    monkeypatch.setattr(Watch, "look", look_and_act)
    monkeypatch.setattr("app.cli.runs.LOOK_EVERY_S", 0.01)
    return seen


def rest(_operations: Operations, _run: int) -> None:
    """Do nothing."""


@pytest.mark.usefixtures("stage")
def test_whoever_watches_goes_on_through_a_pause_until_the_run_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = start(run)["id"]
    seen = acting(monkeypatch, pause, rest, rest, resume, cancel)
    cancelled = document(run, "watch", waiting, code=1)
    assert seen == ["running", "paused", "paused", "paused", "running", "cancelled"]
    assert cancelled["state"] == "cancelled" and cancelled["finished_at"] is not None


@pytest.mark.usefixtures("stage")
def test_watching_that_is_ended_before_its_run_is_no_success(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = start(run)["id"]
    seen = acting(monkeypatch, pause, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert document(run, "watch", waiting, code=1)["state"] == "paused"
    assert seen == ["running", "paused"]


@pytest.mark.usefixtures("stage")
def test_the_node_of_a_waiting_command_stays_through_a_pause(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = acting(monkeypatch, pause, rest, rest, resume)
    done = document(run, "start", "--strategy", "cross", *RANGE, "--wait")
    assert (done["state"], done["succeeded"]) == ("complete", 1)
    assert seen[:4] == ["running", "paused", "paused", "paused"] and seen[-1] == "complete"


@pytest.mark.usefixtures("stage")
def test_a_range_with_an_offset_is_converted(run: Run) -> None:
    begin = ("--from", "2024-01-08T00:00-05:00", "--to", "2024-01-09")
    spec = document(run, "show", start(run, *begin)["id"])["spec"]
    assert (spec["from"], spec["to"]) == ("2024-01-08T05:00:00Z", "2024-01-09T00:00:00Z")


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("start", "--strategy", "cros", *RANGE), "no strategy 'cros': did you mean 'cross'?"),
        (("start", "--strategy", "cross", *RANGE, "--symbol", "AAB"), "no stored 1h series matches 'AAB'"),
        (("start", "--strategy", "cross", *RANGE, "--to", "2023-01-01"), "from must be before to"),
        (
            ("start", "--strategy", "cross", *RANGE[:2], "--from", "2025-01-01", "--to", "2025-02-01"),
            "no candle of AAA",
        ),
        (("start", "--strategy", "cross", *RANGE, "--grid", "fast"), "expected PARAM=VALUE,VALUE"),
        (("start", "--strategy", "cross", *RANGE, "--grid", "fast="), "expected values to try, found an empty list"),
        (("start", "--strategy", "cross", *RANGE, "--grid", "other.fast=1"), "not a strategy of this run"),
        (("start", "--timeframe", "1h"), "strategies: this key is required"),
        (("start", "none.toml"), "expected a readable file"),
        (("show", "12"), "no run 12"),
        (("cancel", "12"), "no run 12"),
        (("retry", "12"), "expected --failed"),
        (("report", "12", "--html", "/nonexistent/x.html"), "--html /nonexistent/x.html: expected a file that can be"),
        (("report", "12", "--csv", "/"), "--csv /: expected a file that can be written, found a folder"),
        (("report", "12", "--csv", "x" * 300), "no run 12"),
        (("compare", "1"), "expected a second run or --live, found neither"),
    ],
)
def test_what_cannot_be_is_said_before_anything_happens(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    result = run("runs", *arguments)
    assert expected in str(result.exception), result.output
    assert document(run, "list") == []


@pytest.mark.usefixtures("stage")
def test_everything_that_is_wrong_is_said_at_once(run: Run) -> None:
    wrong = ("--strategy", "cros", "--symbol", "AAB", "--grid", "fast=", "--to", "2023-01-01")
    more = ("--set", "limits.retries=-1", "--set", "trading.fee=1", "--set", "foo=1", "--strategy", "none.toml")
    result = run("runs", "start", *RANGE, *wrong, *more)
    assert isinstance(result.exception, SpecificationError)
    fields = sorted(problem.partition(": ")[0] for problem in result.exception.problems)
    expected = ["foo", "from, to", "grid.fast", "limits.retries", "strategies", "strategies", "symbols", "trading.fee"]
    assert fields == expected


@pytest.mark.usefixtures("stage")
def test_every_key_can_be_set_from_the_command_line(run: Run) -> None:
    trading = ("--set", "trading.fee_percent=0.2", "--set", "trading.size_by_strength=true")
    spec = document(run, "show", start(run, *trading, "--set", "limits.retries=0")["id"])["spec"]
    assert spec["trading"] == {"fee_percent": 0.2, "size_by_strength": True}
    assert spec["limits"]["retries"] == 0
