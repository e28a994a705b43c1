"""`candlefleet runs`: what it prints, refuses and returns, on real servers and with the node that it starts itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.broker import BATCH_QUEUE
from app.storage.candles import record_candles
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
    assert (done["state"], done["succeeded"], done["candles_done"], done["slots"]) == ("complete", 2, 1152, 0)
    shown = document(run, "show", done["id"])
    assert {unit["params"]["fast"] for unit in shown["units_listed"]} == {5, 8}
    assert shown["spec"]["grid"] == {"fast": [5, 8]}
    best = shown["units_listed"][0]
    trades = document(run, "trades", done["id"], "--unit", best["number"])
    assert [trade["number"] for trade in trades] == list(range(best["metrics"]["trades"])) != []
    assert sum(trade["fees"] for trade in trades) == pytest.approx(best["metrics"]["fees"])
    assert "has no unit 7" in str(run("runs", "trades", done["id"], "--unit", 7).exception)
    assert document(run, "compare", done["id"], done["id"])["differing"] == 0
    assert document(run, "compare", done["id"], "--live", code=1)["decisions"] == 0
    assert "Nothing was compared" in run("runs", "compare", done["id"], "--live").output
    assert document(run, "watch", done["id"])["state"] == "complete"
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
    for command, state in (
        ("pause", "paused"),
        ("resume", "running"),
        ("cancel", "cancelled"),
        ("resume", "cancelled"),
    ):
        assert run("runs", command, waiting["id"]).exit_code == 0
        assert document(run, "list")[0]["state"] == state
    assert len(stage.raw(BATCH_QUEUE)) == 2


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
        (("compare", "1"), "expected a second run or --live, found neither"),
    ],
)
def test_what_cannot_be_is_said_before_anything_happens(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    result = run("runs", *arguments)
    assert expected in str(result.exception), result.output
    assert document(run, "list") == []
