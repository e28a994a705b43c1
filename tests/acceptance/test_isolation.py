"""Misbehaving strategies in one chunk with good ones: nobody else notices, and they are recorded as they are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_celery import CeleryTestSetup

from app.domain.candles import Candle
from app.domain.strategies import Limits, StrategyDefinition
from app.strategies.bars import Bars
from tests.acceptance.scene import Row, Scene, answers, assert_exactly_once
from tests.building import ListFeed, definition, walk
from tests.quant.revealing import digest

#: Candles that were there before anybody subscribed, and candles that are dispatched.
PAST, LIVE = 60, 4


class Case(NamedTuple):
    """A misbehaving strategy and what must be recorded about it."""

    implementation: str
    retries: int
    status: str
    error_class: str
    error: str
    timeout_ms: int = 5000
    memory_mb: int = 512


BAD = {
    "iso.raises": Case("Raises", 2, "failed", "ValueError", "no idea what to do with \ufffd this candle"),
    "iso.unspeakable": Case("Unspeakable", 0, "failed", "Silent", "(its message cannot be shown: RuntimeError)"),
    "iso.sleeps": Case("Sleeps", 0, "timed_out", "TimeoutError", "within 150 ms", timeout_ms=150),
    "iso.stubborn": Case("Stubborn", 1, "timed_out", "TimeoutError", "within 100 ms", timeout_ms=100),
    "iso.greedy": Case("Greedy", 1, "failed", "MemoryLimitError", "expected at most 512 MiB more"),
    "iso.hoards": Case("Hoards", 0, "failed", "MemoryLimitError", "raise limits.memory_mb", memory_mb=64),
    "iso.arrays": Case("WantsAnArray", 0, "failed", "MemoryLimitError", "Unable to allocate"),
    "iso.quits": Case("Quits", 0, "failed", "SystemExit", "done for today"),
    "iso.garbage": Case("Garbage", 0, "failed", "InvalidSignalError", "found str 'buy, buy, buy'"),
    "iso.overconfident": Case("Overconfident", 0, "failed", "InvalidSignalError", "strength to be 0 to 1"),
    "iso.vandal": Case("Vandal", 0, "failed", "ValueError", "read-only"),
    # it cannot even be created: trying again gives the same answer, so its two retries are not used
    "iso.nowhere": Case("Nowhere", 2, "failed", "ConfigurationError", "Nowhere"),
}
GOOD = ("ema_cross", "macd", "tests.quant.revealing:Digest", "supertrend")


def bad_definition(name: str, case: Case) -> StrategyDefinition:
    limits = Limits(timeout_ms=case.timeout_ms, retries=case.retries, memory_mb=case.memory_mb)
    return definition(name, f"tests.quant.misbehaving:{case.implementation}", symbols=["ISO-BAD"], limits=limits)


@pytest.fixture(scope="module")
def history() -> list[Candle]:
    return walk("ISO-BAD", PAST + LIVE)


@pytest.fixture
def played(celery_setup: CeleryTestSetup, scene: Scene, history: list[Candle]) -> Scene:
    """The same candles for good strategies alone and for good and bad ones in one chunk; once per module."""
    if scene.dispatches("ISO-BAD"):
        return scene
    alone = [candle.model_copy(update={"symbol": "ISO-GOOD"}) for candle in history]
    scene.run(ListFeed(history[:PAST], alone[:PAST]))  # nobody has subscribed yet: stored, not dispatched
    good = [definition(f"iso.good-{n}", name, symbols=["ISO-*"]) for n, name in enumerate(GOOD)]
    bad = [bad_definition(name, case) for name, case in BAD.items()]
    # every good one comes after bad ones
    scene.register(*bad[:3], *good[:1], *bad[3:6], *good[1:3], *bad[6:], *good[3:])
    slots = celery_setup.worker.process.slots()
    report = scene.play(history[PAST:], alone[PAST:])
    assert report.chunks == 2 * LIVE  # all of a candle in one message
    assert celery_setup.worker.process.slots() == slots  # nobody took a slot down
    return scene


def test_good_strategies_answer_as_if_they_were_alone(played: Scene) -> None:
    assert_exactly_once(played, "ISO-BAD", "ISO-GOOD")
    beside = [row for row in played.outcomes("ISO-BAD") if row["name"].startswith("iso.good")]
    alone = played.outcomes("ISO-GOOD")
    assert {row["status"] for row in beside} == {"succeeded"}
    assert len(beside) == len(alone) == len(GOOD) * LIVE
    assert answers([without_identity(row) for row in beside]) == answers([without_identity(row) for row in alone])
    assert any(row["action"] for row in beside)


def without_identity(row: Row) -> Row:
    """Drop what differs between two runs of an equal evaluation: the process, and how often it was asked."""
    detail = row["detail"] or {}
    extras = {key: value for key, value in detail.get("extras", {}).items() if key not in ("pid", "calls")}
    return {**row, "detail": {**detail, "extras": extras}}


def test_shared_window_is_what_nobody_changed(played: Scene, history: list[Candle]) -> None:
    rows = [row for row in played.outcomes("ISO-BAD") if row["name"] == "iso.good-2"]
    expected = [digest(Bars.from_candles(history[: PAST + n + 1])) for n in range(LIVE)]
    assert [row["detail"]["extras"]["digest"] for row in rows] == expected


@pytest.mark.parametrize("name", BAD)
def test_bad_strategy_is_recorded_as_it_is(played: Scene, name: str) -> None:
    case = BAD[name]
    retries = 0 if case.implementation == "Nowhere" else case.retries
    rows = [row for row in played.outcomes("ISO-BAD") if row["name"] == name]
    assert len(rows) == LIVE
    for row in rows:
        assert (row["status"], row["error_class"], row["attempt"]) == (case.status, case.error_class, retries)
        assert case.error in row["error"]
        assert (row["action"], row["strength"], row["edge"], row["detail"]) == (None,) * 4
        tried = [a for a in played.attempts("ISO-BAD") if (a["dispatch_id"], a["name"]) == (row["id"], name)]
        assert [attempt["attempt"] for attempt in tried] == list(range(retries))
        assert {(a["status"], a["error_class"]) for a in tried} <= {(case.status, case.error_class)}


@pytest.mark.parametrize("name", [name for name, case in BAD.items() if case.status == "timed_out"])
def test_soft_limit_ends_a_job_long_before_it_would_end_itself(played: Scene, name: str) -> None:
    limit_ms = BAD[name].timeout_ms
    for row in played.outcomes("ISO-BAD"):
        if row["name"] == name:
            assert limit_ms <= row["processing_ms"] < 10_000  # it sleeps for a minute


def test_decision_hears_only_those_who_succeeded(played: Scene) -> None:
    decided = played.decisions("ISO-BAD")
    share = len(GOOD) / (len(GOOD) + len(BAD))
    assert [row["weight_heard"] for row in decided.values()] == pytest.approx([share] * LIVE)
    assert {row["action"] for row in decided.values()} == {None}  # below the quorum of one half


def test_a_job_that_recovers_lands_once_with_the_window_of_its_candle(
    celery_setup: CeleryTestSetup, scene: Scene, tmp_path: Path
) -> None:
    params = {"folder": str(tmp_path), "failures": 2}
    limits = Limits(retries=3)
    flaky = "tests.quant.misbehaving:Flaky"
    scene.register(definition("re.flaky", flaky, symbols=["RE-ONE"], params=params, limits=limits))
    candles = walk("RE-ONE", 8)
    scene.play(candles)
    assert_exactly_once(scene, "RE-ONE")
    rows = scene.outcomes("RE-ONE")
    assert [(row["status"], row["attempt"], row["detail"]["extras"]["tried"]) for row in rows] == [
        ("succeeded", 2, 3)
    ] * len(candles)
    # by the time of a retry the window has moved on: it must be cut at the job's own candle
    expected = [digest(Bars.from_candles(candles[: n + 1])) for n in range(len(candles))]
    assert [row["detail"]["extras"]["digest"] for row in rows] == expected
    tried = scene.attempts("RE-ONE")
    assert [(a["attempt"], a["status"], a["error"]) for a in tried] == [
        (0, "failed", "attempt 1 failed"),
        (1, "failed", "attempt 2 failed"),
    ] * len(candles)
