"""Strategies of freqtrade's interface on real workers, beside native ones."""

from __future__ import annotations

from pytest_celery import CeleryTestSetup

from app.domain.strategies import Limits
from tests.acceptance.scene import Scene, assert_exactly_once
from tests.building import definition, walk

CANDLES, PERIOD = 90, 12
MODULE = "freqtrade:tests.quant.in_freqtrade_style"


def test_a_freqtrade_strategy_lands_its_signals(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    candles = walk("FT-ONE", CANDLES, seed=2)
    scene.register(
        definition("ft.channel", f"{MODULE}:Channel", symbols=["FT-ONE"], params={"buy_period": PERIOD}),
        definition("ft.asks", f"{MODULE}:AsksForTrades", symbols=["FT-ONE"], limits=Limits(retries=0)),
        definition("ft.good", symbols=["FT-ONE"]),
    )
    scene.play(candles)
    assert_exactly_once(scene, "FT-ONE")
    rows = {name: [row for row in scene.outcomes("FT-ONE") if row["name"] == name] for name in _names(scene)}
    assert {row["status"] for row in rows["ft.good"]} == {"succeeded"}
    by_time = {row["open_time"]: row for row in rows["ft.channel"]}
    seen = set()
    for index in range(40, CANDLES):
        before, now = candles[index - PERIOD : index], candles[index]
        above, below = now.close > max(each.high for each in before), now.close < min(each.low for each in before)
        row = by_time[now.open_time]
        assert (row["status"], row["action"]) == ("succeeded", above - below)
        assert row["detail"]["extras"].get("enter_tag") == ("above" if above else "below" if below else None)
        seen.add(row["action"])
    assert seen == {-1, 0, 1}
    failed = [row for row in rows["ft.asks"] if row["status"] == "failed"]
    assert failed and {row["error_class"] for row in failed} == {"ConfigurationError"}
    assert "dp.orderbook is not offered" in failed[-1]["error"]


def _names(scene: Scene) -> set[str]:
    return {row["name"] for row in scene.outcomes("FT-ONE")}
