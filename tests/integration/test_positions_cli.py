"""What an operator sees of positions: listings, the story of a candle, intents as they come."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.broker import create_celery
from app.domain.strategies import Trading
from tests.building import START, candle, definition, register
from tests.integration.ledger import build_dispatcher
from tests.integration.stage import REPOSITORY, Run, Stage
from tests.waiting import wait_until
from workers.lifecycle import open_slot
from workers.shared import Shared

pytestmark = pytest.mark.timeout(120, method="thread")

PLAIN = Trading(capital=10_000, fee_percent=0, slippage_percent=0)


@pytest.fixture
def traded(stage: Stage) -> Stage:
    """Two strategies on two symbols over four candles: one was long and is short now, the other says nothing."""
    play(stage, "+-", "0", count=4)
    return stage


def play(stage: Stage, *scripts: str, count: int, first: int = 0) -> None:
    since = {"since_ms": int(START.timestamp() * 1000)}
    engine = stage.operations.engine
    for number, script in enumerate(scripts):
        params = {**since, "script": script}
        register(engine, definition(f"s{number}", "tests.quant.trading:Follows", params=params, trading=PLAIN))
    dispatcher = build_dispatcher(engine)
    slot = open_slot(create_celery(stage.settings), stage.settings, Shared())
    for n in range(first, first + count):
        candles = [candle(n, symbol, high=120.0, close=100.5 + n) for symbol in ("AAA", "BBB")]
        slot.executor.execute([envelope.chunk for envelope in dispatcher.write(candles).envelopes])
    slot.close()


def documents(run: Run, *arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_positions_with_what_is_not_realised(run: Run, traded: Stage) -> None:
    rows = documents(run, "positions", "--strategy", "s0")
    assert [(row["symbol"], row["side"], row["trades"], row["order_side"]) for row in rows] == [
        ("AAA", -1, 1, None),
        ("BBB", -1, 1, None),
    ]
    (row,) = documents(run, "positions", "--symbol", "AAA", "--open")
    assert row["price"] == 103.5
    assert row["unrealised"] == pytest.approx(-row["quantity"] * (103.5 - row["entry_price"]))
    shown = run("positions", "--open").stdout
    assert "short" in shown and "unrealised" in shown
    assert run("positions", "--strategy", "s1", "--open").stdout == ""
    assert len(documents(run, "positions", "--limit", "1")) == 1


def test_events_are_tagged_and_filtered(run: Run, traded: Stage) -> None:
    rows = documents(run, "events", "--strategy", "s0", "--symbol", "AAA")
    assert [(row["kind"], row["reason"]) for row in rows] == [
        ("opened", "signal"),
        ("closed", "signal"),
        ("opened", "signal"),
    ]
    assert {row["strategy_id"] for row in rows} == {1}
    assert all(len(row["correlation_id"]) == 32 for row in rows)
    again = documents(run, "events", "--correlation", rows[0]["correlation_id"])
    assert [row["id"] for row in again] == [row["id"] for row in rows[:2]]
    assert len(documents(run, "events", "--kind", "closed")) == 2
    assert documents(run, "events", "--strategy", "s1") == []
    assert documents(run, "events", "--since", "2025-01-01") == []


def test_actions_are_listed_by_state_and_from_an_id_on(run: Run, traded: Stage) -> None:
    rows = documents(run, "actions", "--symbol", "BBB")
    assert [(row["kind"], row["side"], row["state"]) for row in rows] == [
        ("open", -1, "pending"),
        ("close", 1, "pending"),
        ("open", 1, "pending"),
    ]
    assert datetime.fromisoformat(rows[-1]["open_time"]) == START, "told when its candle closed, not one later"
    assert len({row["idempotency_key"] for row in rows}) == 3
    after = documents(run, "actions", "--after", str(rows[-1]["id"]), "--symbol", "BBB")
    assert [row["id"] for row in after] == [row["id"] for row in rows[1::-1]]
    assert documents(run, "actions", "--state", "refused") == []


def test_trace_tells_what_a_candle_did_to_positions(run: Run, traded: Stage) -> None:
    (event, *_) = documents(run, "events", "--symbol", "AAA", "--limit", "1")
    story = documents(run, "trace", event["correlation_id"])
    told = [(each["what"], each["who"]) for each in story["events"]]
    assert ("position", "s0") in told and ("action", "s0") not in told
    (action, *_) = documents(run, "actions", "--symbol", "AAA", "--limit", "1")
    story = documents(run, "trace", action["correlation_id"])
    assert [each["detail"] for each in story["events"] if each["what"] == "action"][-1].startswith("open short")
    job = documents(run, "trace", f"{story['dispatch_id']}.2")
    assert {each["what"] for each in job["events"]}.isdisjoint({"position", "action"})


@contextmanager
def following(stage: Stage, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli.main", "actions", "--follow", "--json", *arguments],
            stdout=output,
            cwd=REPOSITORY,
            env=stage.environment,
        )
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_follow_resumes_after_an_id_and_goes_on_with_new_ones(run: Run, traded: Stage, tmp_path: Path) -> None:
    known = documents(run, "actions")
    log = tmp_path / "log"
    with following(traded, log, "--after", str(known[-1]["id"])):
        wait_until(lambda: log.read_text().count("\n") >= len(known) - 1, "what was there is printed")
        play(traded, "+-+", "0", count=3, first=4)
        expected = sorted(row["id"] for row in documents(run, "actions"))[1:]
        assert len(expected) > len(known)
        wait_until(lambda: log.read_text().count("\n") >= len(expected), "new ones are printed")
    assert [json.loads(line)["id"] for line in log.read_text().splitlines()] == expected
