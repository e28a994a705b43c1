"""The main job: candles of several symbols in, every outcome and decision in Postgres, exactly once and right."""

from __future__ import annotations

import psutil
import pytest
from pytest_celery import CeleryTestSetup

from app.definitions import load_definitions
from app.domain.candles import Candle
from app.domain.jobs import Signal
from app.domain.strategies import RegisteredStrategy
from app.operations import BUILTIN_DEFINITIONS, Operations
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.registry import Registry
from tests.acceptance.scene import Row, Scene, answers, assert_exactly_once
from tests.building import START, definition, walk
from tests.waiting import wait_until

#: Longer than the window of the workers, so that its cut shows.
CANDLES = 190


def register_builtins(scene: Scene, *symbols: str) -> list[RegisteredStrategy]:
    """Put the shipped strategies into the catalogue for these symbols only."""
    prefix = symbols[0].lower().replace("-", "_")
    loaded = [item.definition for item in load_definitions(BUILTIN_DEFINITIONS, Registry())]
    subscription = loaded[0].subscription.model_copy(update={"symbols": symbols})
    return scene.register(
        *(
            each.model_copy(update={"name": f"{prefix}.{each.name}", "subscription": subscription, "weight": 1 + n / 4})
            for n, each in enumerate(loaded)
        )
    )


def unprefixed(rows: list[Row]) -> list[Row]:
    return [{**row, "name": row["name"].partition(".")[2]} for row in rows]


def expected_signal(strategy: RegisteredStrategy, candles: list[Candle], index: int, window: int) -> Signal:
    """Evaluate in this process: the same code on the window that the worker should have had."""
    implementation, params = strategy.definition.implementation, strategy.definition.params
    bars = Bars.from_candles(candles[: index + 1]).last(window)
    return evaluate(Registry().create(implementation, params), bars)


def test_signals_equal_those_of_the_same_candles_in_this_process(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    series = {symbol: walk(symbol, CANDLES, seed) for seed, symbol in enumerate(("EQ-ONE", "EQ-TWO"))}
    strategies = {strategy.id: strategy for strategy in register_builtins(scene, *series)}
    report = scene.play(*series.values())
    assert (report.candles, report.jobs) == (2 * CANDLES, 2 * CANDLES * len(strategies))
    assert_exactly_once(scene, *series)
    rows = scene.outcomes(*series)
    assert len(rows) == report.jobs
    # every candle of the first, the cut and the last stretch of the window, for every strategy and symbol
    checked = [row for row in rows if index_of(row) in {*range(0, 140, 9), *range(155, 165), *range(185, CANDLES)}]
    for row in checked:
        candles, strategy = series[row["symbol"]], strategies[row["strategy_id"]]
        signal = expected_signal(strategy, candles, index_of(row), scene.settings.worker.window)
        assert said(row) == signal, (row["symbol"], row["open_time"], row["name"])
    assert {row["action"] for row in checked} == {-1, 0, 1}


def index_of(row: Row) -> int:
    return int((row["open_time"] - START).total_seconds() // 3600)


def said(row: Row) -> Signal:
    detail = row["detail"] or {}
    return Signal(
        action=row["action"],
        strength=row["strength"],
        edge=row["edge"],
        stop=detail.get("stop"),
        target=detail.get("target"),
        extras=detail.get("extras", {}),
    )


def test_decisions_follow_from_the_outcomes(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    register_builtins(scene, "DE-ONE", "DE-TWO")
    scene.register(definition("de.garbage", "tests.quant.misbehaving:Garbage", symbols=["DE-TWO"], weight=30))
    scene.play(walk("DE-ONE", 150), walk("DE-TWO", 150, seed=8))
    rules = scene.settings.decision
    decided = scene.decisions("DE-ONE", "DE-TWO")
    rows = scene.outcomes("DE-ONE", "DE-TWO")
    opened = scene.dispatches("DE-ONE", "DE-TWO")
    assert decided.keys() == {dispatch["id"] for dispatch in opened}
    for dispatch in opened:
        weight = dict(zip(dispatch["strategy_ids"], dispatch["weights"], strict=True))
        heard = [row for row in rows if row["id"] == dispatch["id"] and row["status"] == "succeeded"]
        share = sum(weight[row["strategy_id"]] for row in heard)
        score = sum(weight[row["strategy_id"]] * row["action"] * row["strength"] for row in heard) / share
        found = decided[dispatch["id"]]
        assert found["score"] == pytest.approx(score, abs=1e-12)
        assert found["weight_heard"] == pytest.approx(share / sum(weight.values()), abs=1e-12)
        assert found["missing"] == []
        assert found["closed_by"] == "complete"
        if found["weight_heard"] < rules.quorum:
            assert found["action"] is None
        else:
            direction = 0 if abs(found["score"]) < rules.threshold else 1 if found["score"] > 0 else -1
            assert found["action"] == direction
    actions = {row["action"] for row in decided.values()}
    assert actions == {-1, 0, 1, None}  # None: the failing strategy of DE-TWO outweighs all others


def test_chunking_changes_no_answer(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    register_builtins(scene, "ON-BTC")
    register_builtins(scene, "OFF-BTC")
    count = 60
    together = scene.play(walk("ON-BTC", count))
    apart = scene.play(walk("OFF-BTC", count), chunking=False)
    assert together.jobs == apart.jobs == 10 * count
    # one message per priority against one per job
    assert (together.chunks, apart.chunks) == (3 * count, 10 * count)
    assert_exactly_once(scene, "ON-BTC", "OFF-BTC")
    assert answers(unprefixed(scene.outcomes("ON-BTC"))) == answers(unprefixed(scene.outcomes("OFF-BTC")))


def test_slots_stay_small_with_fifty_strategies(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    fifty = [
        definition(f"mem.cross-{n}", params={"fast": 3 + n % 10, "slow": 20 + n}, symbols=["MEM-*"]) for n in range(50)
    ]
    scene.register(*fifty)
    report = scene.play(walk("MEM-ONE", 135), walk("MEM-TWO", 135, seed=8))
    assert report.candles <= report.chunks <= 2 * report.candles  # of two slots none waits for the other
    assert_exactly_once(scene, "MEM-ONE", "MEM-TWO")
    slots = celery_setup.worker.process.slots()
    assert len(slots) == 2
    # pages that processes share, such as libraries loaded before the fork, count in proportion
    own = {pid: psutil.Process(pid).memory_full_info().pss for pid in slots}
    assert max(own.values()) < 100_000_000, own


def test_fleet_answers_by_its_names(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(control=True)
    answered = celery_setup.app.control.ping(timeout=5.0, limit=len(celery_setup.worker_cluster))
    assert [set(reply) for reply in answered] == [{node.hostname()} for node in celery_setup.worker_cluster]


def test_node_answers_what_flower_asks_for(celery_setup: CeleryTestSetup) -> None:
    inspect = celery_setup.app.control.inspect(destination=[celery_setup.worker.hostname()], timeout=5.0, limit=1)
    for question in ("active_queues", "registered", "active", "stats"):
        answer = getattr(inspect, question)()
        assert answer is not None, f"no answer to {question}:\n{celery_setup.worker.logs()[-2000:]}"
        assert set(answer) == {celery_setup.worker.hostname()}


def test_node_reports_its_slots_and_what_they_did(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    scene.register(definition("rep.garbage", "tests.quant.misbehaving:Garbage", symbols=["REP-ONE"]))
    scene.play(walk("REP-ONE", 3))
    operations = Operations(scene.settings)
    try:
        status = wait_until(lambda: (found := operations.status())["active_workers"] == 1 and found, "the node reports")
        assert status["slots"] == 2
        assert [node["node"] for node in status["nodes"]] == [celery_setup.worker.hostname()]
        assert status["jobs"]["waiting"] == 0
        scene.wait_until_idle()
        counted = wait_until(
            # what is delivered twice is executed, and counted, twice
            lambda: (node := operations.status()["nodes"][0])["processed"] >= status["jobs"]["total"] and node,
            "the node has counted every outcome",
        )
        assert counted["errors"] >= status["jobs"]["failed"] > 0
    finally:
        operations.close()
