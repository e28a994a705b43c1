"""Everything that can be wrong with a strategy's code, params or answers, in one chunk with good ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from pytest_celery import CeleryTestSetup

from app.domain.strategies import Limits
from tests.acceptance.scene import Row, Scene, assert_exactly_once
from tests.building import definition, walk

COUNT = 6
GOOD = ("ema_cross", "tests.quant.revealing:Digest", "macd")

#: How an error begins that is about an answer: the strategy and the candle.
ON = "strategy 'bad.{name}' on BAD-ONE 1h candle opened {opened}: "


class Case(NamedTuple):
    """What is wrong, and what must be said about it."""

    error_class: str
    error: str
    implementation: str = ""
    params: dict[str, Any] | None = None


CASES = {
    "wrongparams": Case(
        "ConfigurationError",
        "strategy 'bad.wrongparams' (ema_cross): params.fast: Input should be greater than or equal to 2, found 1; "
        "allowed: integer, at least 2, at most 1000; params.slwo: unknown key: did you mean 'slow'?",
        "ema_cross",
        {"fast": 1, "slwo": 30},
    ),
    "unimportable": Case(
        "ConfigurationError",
        "strategy 'bad.unimportable': implementation 'tests.quant.unimportable:Any' cannot be imported: "
        "RuntimeError: the model file is missing",
        "tests.quant.unimportable:Any",
    ),
    "absent": Case(
        "ConfigurationError", "strategy 'bad.absent': implementation 'tests.quant.nonsense:Absent'", "Absent"
    ),
    "forbidden": Case(
        "ConfigurationError",
        "strategy 'bad.forbidden': implementation 'os.path:join': module 'os.path' is not under an allowed prefix; "
        "allowed: tests.quant",
        "os.path:join",
    ),
    "declarestheunknown": Case(
        "ConfigurationError",
        "strategy 'bad.declarestheunknown' (tests.quant.nonsense:DeclaresTheUnknown): params: cannot be used: "
        "ConfigurationError: unknown indicator 'rsii': did you mean 'rsi'?",
        "DeclaresTheUnknown",
    ),
    "asksforanother": Case(
        "UnknownIndicatorError",
        ON + "expected a declared indicator, found 'maen': did you mean 'mean'? allowed: mean",
        "AsksForAnother",
    ),
    "toohigh": Case(
        "TimeframeError",
        ON + "indicator candle on 30m: expected candles of a lower timeframe that divides it (1m, 3m, 5m, 15m), "
        "found 1h",
        "TooHigh",
    ),
    "nan": Case("InvalidSignalError", ON + "expected strength to be 0 to 1, found nan", "NaNStrength"),
    "above": Case("InvalidSignalError", ON + "expected strength to be 0 to 1, found 1.5", "StrengthAboveOne"),
    "below": Case("InvalidSignalError", ON + "expected strength to be 0 to 1, found -0.1", "StrengthBelowZero"),
    "action": Case("InvalidSignalError", ON + "expected action to be -1, 0 or 1, found 7", "UnknownAction"),
    "length": Case(
        "InvalidSignalError",
        ON + "expected action as int8 array of shape ({n},), found int8 array of shape ({n_and_1},)",
        "TooLong",
    ),
    "shape": Case(
        "InvalidSignalError",
        ON + "expected strength as float64 array of shape ({n},), found float64 array of shape ({n}, 1)",
        "TwoDimensional",
    ),
    "dtype": Case(
        "InvalidSignalError",
        ON + "expected action as int8 array of shape ({n},), found float64 array of shape ({n},)",
        "WrongDtype",
    ),
    "alist": Case(
        "InvalidSignalError", ON + "expected strength as float64 array of shape ({n},), found list [0.5", "AList"
    ),
    "edge": Case("InvalidSignalError", ON + "expected edge to be a finite number, or NaN for none", "InfiniteEdge"),
    "stop": Case(
        "InvalidSignalError",
        ON + "expected stop to be a finite price above 0, or NaN for none, found -1.0",
        "NegativeStop",
    ),
    "nosignals": Case("InvalidSignalError", ON + "expected Signals from signals(), found float64 array", "NoSignals"),
    "oncandle": Case("InvalidSignalError", ON + "expected a valid Signal, found strength 2.0: ", "SureBeyondMeasure"),
    "analyzer": Case(
        "InvalidSignalError",
        "strategy 'bad.analyzer.a' on BAD-ONE 1h candle opened {opened}: expected action -1, 0 or 1 and strength "
        "0 to 1, found 1 and ",
        "composite",
        {"analyzers": {"a": {"implementation": "tests.quant.nonsense:NaNStrength"}}, "hold": 0},
    ),
}


def implementation(case: Case) -> str:
    is_whole = ":" in case.implementation or case.implementation in ("composite", "ema_cross")
    return case.implementation if is_whole else f"tests.quant.nonsense:{case.implementation}"


@pytest.fixture
def played(celery_setup: CeleryTestSetup, scene: Scene) -> Scene:
    """A few candles for good and bad strategies in one chunk each; once per module."""
    if scene.dispatches("BAD-ONE"):
        return scene
    none = Limits(retries=0)
    bad = [
        definition(f"bad.{name}", implementation(case), symbols=["BAD-ONE"], params=case.params, limits=none)
        for name, case in CASES.items()
    ]
    good = [definition(f"good.{n}", name, symbols=["BAD-ONE"]) for n, name in enumerate(GOOD)]
    scene.register(*good[:1], *bad[:7], *good[1:2], *bad[7:], *good[2:])
    slots = celery_setup.worker.process.slots()
    report = scene.play(walk("BAD-ONE", COUNT))
    assert report.chunks == COUNT  # all of a candle in one message
    assert celery_setup.worker.process.slots() == slots
    return scene


def rows_of(scene: Scene, name: str) -> list[Row]:
    rows = [row for row in scene.outcomes("BAD-ONE") if row["name"] == name]
    assert len(rows) == COUNT
    return rows


@pytest.mark.parametrize("name", CASES)
def test_error_says_who_where_and_what_was_expected(played: Scene, name: str) -> None:
    case = CASES[name]
    for n, row in enumerate(rows_of(played, f"bad.{name}"), 1):
        words = {"name": name, "opened": row["open_time"].isoformat(), "n": n, "n_and_1": n + 1}
        assert (row["status"], row["error_class"]) == ("failed", case.error_class), row["error"]
        assert row["error"].startswith(case.error.format(**words))


@pytest.mark.parametrize("place", range(len(GOOD)))
def test_neighbours_land(played: Scene, place: int) -> None:
    assert_exactly_once(played, "BAD-ONE")
    assert {row["status"] for row in rows_of(played, f"good.{place}")} == {"succeeded"}
