"""Restated and late candles: what is computed from then on is computed on the corrected history, in every slot."""

from __future__ import annotations

from pathlib import Path

from pytest_celery import CeleryTestSetup

from app.domain.candles import Candle
from app.strategies.bars import Bars
from tests.acceptance.scene import Scene, assert_exactly_once
from tests.building import ListFeed, definition, walk
from tests.quant.revealing import digest


def register_meetings(scene: Scene, symbol: str, folder: Path) -> None:
    """Two strategies that only answer when both slots evaluate the same candle at the same time."""
    meeting = "tests.quant.revealing:Meeting"
    params = {"folder": str(folder)}
    names = [f"{symbol.lower()}.meeting-{n}" for n in range(2)]
    scene.register(*(definition(name, meeting, symbols=[symbol], params=params) for name in names))


def play_apart(scene: Scene, candles: list[Candle]) -> None:
    """Send candles one by one, every job in a message of its own."""
    scene.run(ListFeed(*([candle] for candle in candles)), chunking=False)
    scene.wait_until_landed(candles[0].symbol)


def seen(scene: Scene, symbol: str) -> list[tuple[int, str, str]]:
    """Return candle revision, worker and window of every outcome, in the order of the dispatches."""
    rows = scene.outcomes(symbol)
    assert {row["status"] for row in rows} == {"succeeded"}
    return [(row["candle_revision"], row["worker"], row["detail"]["extras"]["digest"]) for row in rows]


def assert_both_slots_saw(found: list[tuple[int, str, str]], expected: list[tuple[int, list[Candle]]]) -> None:
    assert len(found) == 2 * len(expected)
    for number, (revision, history) in enumerate(expected):
        pair = found[2 * number : 2 * number + 2]
        assert {worker for _, worker, _ in pair} == {worker for _, worker, _ in found}
        assert [(r, window) for r, _, window in pair] == [(revision, digest(Bars.from_candles(history)))] * 2
    assert len({worker for _, worker, _ in found}) == 2


def test_correction_is_a_new_dispatch_on_corrected_history_in_both_slots(
    celery_setup: CeleryTestSetup, scene: Scene, tmp_path: Path
) -> None:
    register_meetings(scene, "CO-ONE", tmp_path)
    old = walk("CO-ONE", 14)
    corrected = old[4].model_copy(update={"close": (old[4].low + old[4].high) / 2, "volume": 1.0})
    new = [*old[:4], corrected, *old[5:]]
    play_apart(scene, old[:10])
    play_apart(scene, [corrected])
    play_apart(scene, old[10:])
    assert_exactly_once(scene, "CO-ONE")
    before = [(0, old[: n + 1]) for n in range(10)]
    after = [(0, new[: n + 1]) for n in range(10, 14)]
    assert_both_slots_saw(seen(scene, "CO-ONE"), [*before, (1, new[:5]), *after])


def test_late_candle_is_in_every_later_window(celery_setup: CeleryTestSetup, scene: Scene, tmp_path: Path) -> None:
    register_meetings(scene, "LA-ONE", tmp_path)
    whole = walk("LA-ONE", 12)
    gapped = [*whole[:5], *whole[6:]]
    play_apart(scene, gapped[:8])
    play_apart(scene, [whole[5]])
    play_apart(scene, whole[9:])
    assert_exactly_once(scene, "LA-ONE")
    before = [(0, gapped[: n + 1]) for n in range(8)]
    after = [(0, whole[: n + 1]) for n in range(9, 12)]
    assert_both_slots_saw(seen(scene, "LA-ONE"), [*before, (0, whole[:6]), *after])


def test_candle_sent_again_unchanged_dispatches_nothing(celery_setup: CeleryTestSetup, scene: Scene) -> None:
    scene.register(definition("again.ema", symbols=["AGAIN"]))
    candles = walk("AGAIN", 10)
    scene.play(candles)
    report = scene.play(candles)
    assert (report.candles, report.repeated, report.dispatches) == (0, 10, 0)
    assert len(scene.dispatches("AGAIN")) == 10
