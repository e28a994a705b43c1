"""Each built-in against its documented formula, computed again with plain loops over tests' own indicators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from app.errors import ConfigurationError
from app.strategies.bars import Bars
from app.strategies.builtin import BUILTINS
from app.strategies.evaluation import evaluate
from app.strategies.indicators import IndicatorCache
from app.strategies.registry import Registry
from app.strategies.sdk import Signals, Strategy
from tests.unit.strategies import reference
from tests.unit.strategies.market import build_bars, random_walk, real_bars, scaled

NAMES = sorted(BUILTINS)


class View(NamedTuple):
    """A score, the move its edge is a share of, and levels."""

    score: float
    move: float
    stop: float | None = None
    target: float | None = None


Views = Iterator[View | None]


def signals_of(strategy: Strategy, bars: Bars) -> Signals:
    return strategy.signals(bars, IndicatorCache(bars).select(strategy.declared))


def each(bars: Bars, score: Callable[..., View], *series: reference.Series) -> Views:
    """Call `score(close, *values)` for every candle at which all series have a value."""
    for close, *values in zip(reference.closes(bars), *series, strict=True):
        yield None if None in values else score(close, *values)


def ema_cross(bars: Bars) -> Views:
    closes = reference.closes(bars)
    lines = reference.ema(closes, 12), reference.ema(closes, 26), reference.atr(bars, 14)
    return each(bars, lambda _close, fast, slow, atr: View((fast - slow) / atr, atr), *lines)


def macd(bars: Bars) -> Views:
    lines = reference.macd_histogram(reference.closes(bars), 12, 26, 9), reference.atr(bars, 14)
    return each(bars, lambda _close, histogram, atr: View(2 * histogram / atr, atr), *lines)


def rsi_reversion(bars: Bars) -> Views:
    def score(_close: float, rsi: float, atr: float) -> View:
        if rsi < 30:
            return View((30 - rsi) / 30, atr)
        return View(-(rsi - 70) / 30 if rsi > 70 else 0.0, atr)

    return each(bars, score, reference.rsi(reference.closes(bars), 14), reference.atr(bars, 14))


def bollinger_reversion(bars: Bars) -> Views:
    def score(close: float, middle: float, deviation: float) -> View:
        z = (close - middle) / (2 * deviation)
        depth = max(abs(z) - 1, 0.0)
        return View(depth if z < 0 else -depth, abs(close - middle), target=middle)

    closes = reference.closes(bars)
    return each(bars, score, reference.sma(closes, 20), reference.rolling(closes, 20, reference.pstdev))


def donchian_breakout(bars: Bars) -> Views:
    def score(close: float, upper: float, lower: float, high10: float, low10: float, atr: float) -> View:
        if close > upper:
            return View((close - upper) / atr, atr, stop=low10)
        if close < lower:
            return View((close - lower) / atr, atr, stop=high10)
        return View(0.0, atr)

    lines = *reference.channel(bars, 20), *reference.channel(bars, 10), reference.atr(bars, 20)
    return each(bars, score, *lines)


def supertrend(bars: Bars) -> Views:
    def score(close: float, level: float, direction: int, atr: float) -> View:
        return View(direction * abs(close - level) / (3 * atr), atr, stop=level)

    level, direction = reference.supertrend(bars, 10, 3.0)
    return each(bars, score, level, list(direction), reference.atr(bars, 10))


def stochastic(bars: Bars) -> Views:
    def score(_close: float, k: float, d: float, atr: float) -> View:
        if d < 20 and k > d:
            return View((20 - d) / 20, atr)
        return View(-(d - 80) / 20 if d > 80 and k < d else 0.0, atr)

    return each(bars, score, *reference.stochastic(bars, 14, 3, 3), reference.atr(bars, 14))


def adx_trend(bars: Bars) -> Views:
    def score(_close: float, adx: float, plus: float, minus: float, atr: float) -> View:
        strength = max(adx - 25, 0.0) / 25
        return View(strength if plus > minus else -strength, atr)

    return each(bars, score, *reference.directional(bars, 14), reference.atr(bars, 14))


def atr_channel_breakout(bars: Bars) -> Views:
    def score(close: float, middle: float, atr: float) -> View:
        if close > middle + 2 * atr:
            return View((close - middle) / atr - 2, atr, stop=middle)
        return View(min((close - middle) / atr + 2, 0.0), atr, stop=middle)

    return each(bars, score, reference.ema(reference.closes(bars), 20), reference.atr(bars, 10))


def vwap_reversion(bars: Bars) -> Views:
    def score(close: float, vwap: float, atr: float) -> View:
        depth = max(abs(vwap - close) / atr / 2 - 1, 0.0)
        return View(depth if close < vwap else -depth, abs(vwap - close), target=vwap)

    return each(bars, score, reference.vwap(bars, 48), reference.atr(bars, 14))


EXPECTED = {
    function.__name__: function
    for function in (
        adx_trend,
        atr_channel_breakout,
        bollinger_reversion,
        donchian_breakout,
        ema_cross,
        macd,
        rsi_reversion,
        stochastic,
        supertrend,
        vwap_reversion,
    )
}


def assert_level(found: Any, expected: float | None) -> None:
    if expected is not None:
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [7, 21])
def test_signals_follow_the_documented_formula(name: str, seed: int) -> None:
    bars, strategy = random_walk(900, seed=seed), BUILTINS[name]()
    signals = signals_of(strategy, bars)
    assert signals.edge is not None
    seen = set()
    for i, view in enumerate(EXPECTED[name](bars)):
        if view is None or abs(abs(view.score) - 1e-6) < 1e-9:
            continue
        action = 0 if abs(view.score) < 1e-6 else 1 if view.score > 0 else -1
        strength = min(abs(view.score), 1.0) if action else 0.0
        assert signals.action[i] == action
        assert signals.strength[i] == pytest.approx(strength, rel=1e-7, abs=1e-9)
        assert signals.edge[i] == pytest.approx(strength * view.move / bars.close[i] * 100, rel=1e-7, abs=1e-9)
        if action:
            assert_level(None if signals.stop is None else signals.stop[i], view.stop)
            assert_level(None if signals.target is None else signals.target[i], view.target)
        seen.add(action)
    assert {-1, 1} <= seen, "the walk must show both sides"


@pytest.mark.parametrize("name", NAMES)
def test_stop_and_target_lie_on_their_side_of_the_price(name: str) -> None:
    bars = random_walk(900)
    signals = signals_of(BUILTINS[name](), bars)
    acting = signals.action != 0
    side, close = signals.action[acting], bars.close[acting]
    if signals.stop is not None:
        assert np.all((close - signals.stop[acting]) * side >= 0)
    if signals.target is not None:
        assert np.all((signals.target[acting] - close) * side >= 0)


@pytest.mark.parametrize("name", NAMES)
def test_still_market_has_no_view(name: str) -> None:
    for price in (1.0, 43210.1, 5.330000000000001e-05):
        signals = signals_of(BUILTINS[name](), build_bars(np.full(400, price)))
        assert not signals.action.any()
        assert not signals.strength.any()


@pytest.mark.parametrize("name", NAMES)
def test_market_that_falls_silent_answers_validly(name: str) -> None:
    walk = random_walk(512)
    still = np.full(900, walk.close[-1])
    closes = np.concatenate([walk.close, still])
    bars = build_bars(
        closes,
        np.concatenate([walk.high, still]),
        np.concatenate([walk.low, still]),
        np.concatenate([walk.volume, np.zeros(900)]),
    )
    strategy = BUILTINS[name]()
    for count in (520, 700, 1412):
        evaluate(strategy, bars.first(count).last(512))
    final = evaluate(strategy, bars.last(512))
    assert (final.action, final.strength) == (0, 0.0)


def test_stochastic_waits_for_the_turn() -> None:
    """In a fall that closes on every low, %K and %D are both 0: oversold, but nothing has turned."""
    falling = evaluate(BUILTINS["stochastic"](), build_bars(np.linspace(200.0, 100.0, 100)))
    assert (falling.action, falling.strength) == (0, 0.0)


def test_no_volume_means_no_vwap_signal() -> None:
    walk = random_walk(300)
    silent = build_bars(walk.close, walk.high, walk.low, np.zeros(300))
    assert signals_of(BUILTINS["vwap_reversion"](), walk).action.any()
    assert not signals_of(BUILTINS["vwap_reversion"](), silent).action.any()


@pytest.mark.parametrize("name", NAMES)
def test_size_of_prices_does_not_matter(name: str) -> None:
    bars = random_walk(300)
    plain, tiny = signals_of(BUILTINS[name](), bars), signals_of(BUILTINS[name](), scaled(bars, 2.0**-30))
    for column in ("action", "strength", "edge"):
        assert np.array_equal(getattr(plain, column), getattr(tiny, column), equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_prices_of_a_few_ticks_answer_validly(name: str) -> None:
    """Real alt/BTC pairs move by one tick of 1e-08 at a price of 5.33e-05, and mostly not at all."""
    random = np.random.default_rng(3)
    closes = (5330 + np.cumsum(random.integers(-1, 2, 600) * (random.random(600) > 0.7))) * 1e-8
    bars, strategy = build_bars(closes), BUILTINS[name]()
    for count in range(strategy.warmup, 600, 37):
        assert 0 <= evaluate(strategy, bars.first(count)).strength <= 1


@pytest.mark.parametrize("name", NAMES)
def test_violent_market_never_states_an_impossible_price(name: str) -> None:
    bars, strategy = random_walk(700, volatility=0.8), BUILTINS[name]()
    for count in range(strategy.warmup, 700, 11):
        evaluate(strategy, bars.first(count))


@pytest.mark.parametrize("name", NAMES)
def test_gaps_in_time_do_not_matter(name: str) -> None:
    bars = random_walk(300)
    times = np.cumsum(np.random.default_rng(1).integers(1, 50, 300)) * 3_600_000
    gapped = Bars(bars.symbol, bars.timeframe, times, bars.open, bars.high, bars.low, bars.close, bars.volume)
    assert evaluate(BUILTINS[name](), bars) == evaluate(BUILTINS[name](), gapped)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_fit_the_default_window(name: str) -> None:
    assert BUILTINS[name]().warmup <= 512 // 2


@pytest.mark.parametrize("name", NAMES)
def test_longer_history_changes_little_after_the_warmup(name: str) -> None:
    bars, strategy = random_walk(2500), BUILTINS[name]()
    off = []
    for end in range(600, 2500, 19):
        short, long = evaluate(strategy, bars.first(end).last(strategy.warmup)), evaluate(strategy, bars.first(end))
        off.append(abs(short.action * short.strength - long.action * long.strength))
    assert np.quantile(off, 0.95) < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_full_window_equals_longer_history_closely(name: str) -> None:
    bars, strategy = random_walk(2500), BUILTINS[name]()
    for end in range(1600, 2500, 19):
        short, long = evaluate(strategy, bars.first(end).last(512)), evaluate(strategy, bars.first(end))
        assert short.action * short.strength == pytest.approx(long.action * long.strength, abs=1e-6)


def test_neighbours_and_order_do_not_matter() -> None:
    bars = random_walk(512)
    strategies = [BUILTINS[name]() for name in NAMES]
    alone = [evaluate(strategy, bars).model_dump_json() for strategy in strategies]
    cache = IndicatorCache(bars)
    together = [evaluate(strategy, bars, cache).model_dump_json() for strategy in reversed(strategies)]
    again = [evaluate(strategy, random_walk(512)).model_dump_json() for strategy in strategies]
    assert alone == together[::-1] == again


@pytest.mark.parametrize("name", NAMES)
def test_real_candles_give_both_sides(name: str) -> None:
    bars = real_bars("bybit-2025/BTC-USDT-1h.csv.gz", 4000)
    actions = signals_of(BUILTINS[name](), bars).action
    assert {-1, 1} <= set(actions.tolist())


BAD_PARAMS = [
    ("ema_cross", {"fast": 30, "slow": 20}, "fast must be below slow, found fast 30 and slow 20"),
    ("ema_cross", {"fast": 1}, "params.fast: .*found 1; allowed: integer, at least 2, at most 1000"),
    ("ema_cross", {"fast": "9"}, "params.fast: .*valid integer, found '9'"),
    ("ema_cross", {"fast": True}, "params.fast: .*valid integer, found True"),
    ("ema_cross", {"fast": 9.5}, "params.fast: .*found 9.5"),
    ("ema_cross", {"fats": 9}, "params.fats: unknown key: did you mean 'fast'\\? allowed: atr_period, fast, slow"),
    ("macd", {"fast": 26, "slow": 26}, "fast must be below slow"),
    ("macd", {"signal": 0}, "params.signal: .*found 0"),
    ("rsi_reversion", {"lower": 60.0}, "params.lower: .*found 60.0; allowed: number, at least 1, at most 49"),
    ("rsi_reversion", {"upper": 30}, "params.upper: .*found 30"),
    ("bollinger_reversion", {"width": 0}, "params.width: .*found 0"),
    ("bollinger_reversion", {"width": None}, "params.width: .*found None"),
    ("bollinger_reversion", {"width": float("nan")}, "params: cannot be used: ValueError"),
    ("donchian_breakout", {"entry": 10, "exit": 20}, "exit must not exceed entry, found exit 20 and entry 10"),
    ("donchian_breakout", {"entry": [20]}, "params.entry: .*found \\[20\\]"),
    ("supertrend", {"multiplier": -3.0}, "params.multiplier: .*found -3.0"),
    ("stochastic", {"lower": 50.0}, "params.lower: .*found 50.0"),
    ("stochastic", {"smooth": 0}, "params.smooth: .*found 0"),
    ("adx_trend", {"threshold": 0}, "params.threshold: .*found 0"),
    ("atr_channel_breakout", {"period": 1_000_000}, "params.period: .*found 1000000"),
    ("vwap_reversion", {"period": 1}, "params.period: .*found 1"),
]


@pytest.mark.parametrize(("name", "params", "words"), BAD_PARAMS)
def test_bad_params_name_strategy_key_and_what_is_allowed(name: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"strategy '{name}'.*{words}"):
        Registry().create(name, params)
