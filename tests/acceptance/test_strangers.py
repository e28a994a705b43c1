"""Strategies that change what their process shares: nobody beside or after them answers otherwise."""

from __future__ import annotations

import json

import pytest
from pytest_celery import CeleryTestSetup

from app.domain.candles import Candle
from app.domain.strategies import Limits
from tests.acceptance.scene import Row, Scene, assert_exactly_once
from tests.building import definition, walk

PAST, LIVE = 60, 4

MEDDLERS = (
    "RaisesOnFloats",
    "TurnsWarningsIntoErrors",
    "ForgetsWarnings",
    "RoundsDecimals",
    "NestsDeeply",
    "MovesAway",
    "StealsTheAlarm",
    "SeedsEverything",
    "WritesIntoWhatItGets",
    "ChangesParamsAndGlobals",
    "ChangesTheIndicators",
    "MeddlesWhenMade",
)
NOTICES = "tests.quant.noticing:Notices"


@pytest.fixture(scope="module")
def candles() -> list[Candle]:
    return walk("STR-WALK", PAST + LIVE)


def renamed(candles: list[Candle], symbol: str) -> list[Candle]:
    return [candle.model_copy(update={"symbol": symbol}) for candle in candles]


@pytest.fixture
def played(celery_setup: CeleryTestSetup, scene: Scene, candles: list[Candle]) -> Scene:
    """The same candles for one who notices alone, and afterwards between all meddlers, in the same slots."""
    if scene.dispatches("STR-BESIDE"):
        return scene
    slots = celery_setup.worker.process.slots()
    scene.register(definition("str.first", NOTICES, symbols=["STR-*"]))
    scene.play(renamed(candles, "STR-ALONE"))
    limits = Limits(retries=0)
    scene.register(
        *(
            definition(f"str.{name.lower()}", f"tests.quant.meddling:{name}", symbols=["STR-BESIDE"], limits=limits)
            for name in MEDDLERS
        ),
        definition("str.last", NOTICES, symbols=["STR-BESIDE"]),
    )
    scene.play(renamed(candles, "STR-BESIDE"))
    assert celery_setup.worker.process.slots() == slots
    return scene


def told(rows: list[Row], name: str) -> list[str]:
    """Return what one strategy said, candle by candle, to the byte."""
    said = [row for row in rows if row["name"] == name]
    assert {row["status"] for row in said} == {"succeeded"}, [row["error"] for row in said]
    return [json.dumps([row["action"], row["strength"], row["edge"], row["detail"]]) for row in said]


@pytest.mark.parametrize("name", ["str.first", "str.last"])
def test_who_runs_beside_them_answers_as_alone(played: Scene, name: str) -> None:
    assert_exactly_once(played, "STR-BESIDE", "STR-ALONE")
    alone = told(played.outcomes("STR-ALONE"), "str.first")
    assert len(alone) == PAST + LIVE
    assert told(played.outcomes("STR-BESIDE"), name) == alone


@pytest.mark.parametrize("name", MEDDLERS)
def test_meddlers_themselves_are_answered_for(played: Scene, name: str) -> None:
    rows = [row for row in played.outcomes("STR-BESIDE") if row["name"] == f"str.{name.lower()}"]
    assert len(rows) == PAST + LIVE
    ready = rows[-1]
    if name == "ChangesTheIndicators":
        assert (ready["status"], ready["error_class"]) == ("failed", "StrategyError")
        assert "talib.set_unstable_period would change the indicators of every strategy" in ready["error"]
    else:
        assert ready["status"] == "succeeded", ready["error"]


def test_what_was_changed_is_logged(celery_setup: CeleryTestSetup, played: Scene) -> None:
    logged = celery_setup.worker.process.logs()
    for what in ("filters of warnings", "recursion limit", "decimal.DefaultContext", "environment", "working folder"):
        assert what in logged
    assert "handler of SIGALRM" in logged
