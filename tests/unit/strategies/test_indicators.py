from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from app.errors import ConfigurationError, StrategyError
from app.strategies.bars import Bars, FloatArray
from app.strategies.compiled import functions
from app.strategies.indicators import Indicator, IndicatorCache
from tests.unit.strategies import reference
from tests.unit.strategies.market import build_bars, random_walk, scaled

EVERY = (
    Indicator.sma(20),
    Indicator.sma(1),
    Indicator.ema(20),
    Indicator.ema(1),
    Indicator.wma(9),
    Indicator.stddev(20),
    Indicator.roc(10),
    Indicator.cci(20),
    Indicator.rsi(14),
    Indicator.atr(14),
    Indicator.highest(10),
    Indicator.lowest(10),
    *(Indicator.macd(12, 26, 9, line=line) for line in ("macd", "signal", "histogram")),
    *(Indicator.bollinger(20, 2.0, line=line) for line in ("upper", "middle", "lower")),
    *(Indicator.stochastic(14, 3, 3, line=line) for line in ("k", "d")),
    Indicator.stochastic(14, 1, 1),
    *(Indicator.adx(14, line=line) for line in ("adx", "plus_di", "minus_di")),
    *(Indicator.donchian(20, line=line) for line in ("upper", "lower")),
    *(Indicator.supertrend(10, 3.0, line=line) for line in ("level", "direction")),
    Indicator.vwap(30),
)


def assert_equals_reference(found: FloatArray, expected: reference.Series) -> None:
    cells = np.array([np.nan if cell is None else cell for cell in expected])
    np.testing.assert_allclose(found, cells, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.fixture(params=[7, 8, 9])
def bars(request: pytest.FixtureRequest) -> Bars:
    return random_walk(260, seed=request.param)


def test_averages_equal_plain_loops(bars: Bars) -> None:
    cache, closes = IndicatorCache(bars), reference.closes(bars)
    assert_equals_reference(cache[Indicator.sma(20)], reference.sma(closes, 20))
    assert_equals_reference(cache[Indicator.ema(21)], reference.ema(closes, 21))
    assert_equals_reference(cache[Indicator.stddev(20)], reference.rolling(closes, 20, reference.pstdev))
    histogram = Indicator.macd(12, 26, 9, line="histogram")
    assert_equals_reference(cache[histogram], reference.macd_histogram(closes, 12, 26, 9))


def test_wilders_indicators_equal_plain_loops(bars: Bars) -> None:
    cache = IndicatorCache(bars)
    assert_equals_reference(cache[Indicator.rsi(14)], reference.rsi(reference.closes(bars), 14))
    assert_equals_reference(cache[Indicator.atr(14)], reference.atr(bars, 14))
    for line, expected in zip(("adx", "plus_di", "minus_di"), reference.directional(bars, 14), strict=True):
        assert_equals_reference(cache[Indicator.adx(14, line=line)], expected)


def test_ranges_equal_plain_loops(bars: Bars) -> None:
    cache = IndicatorCache(bars)
    for line, expected in zip(("k", "d"), reference.stochastic(bars, 14, 3, 3), strict=True):
        assert_equals_reference(cache[Indicator.stochastic(14, 3, 3, line=line)], expected)
    for line, expected in zip(("upper", "lower"), reference.channel(bars, 20), strict=True):
        assert_equals_reference(cache[Indicator.donchian(20, line=line)], expected)
    assert_equals_reference(cache[Indicator.vwap(30)], reference.vwap(bars, 30))


@pytest.mark.parametrize(("period", "multiplier"), [(10, 3.0), (7, 1.5), (1, 0.5)])
def test_supertrend_equals_plain_loop(bars: Bars, period: int, multiplier: float) -> None:
    cache = IndicatorCache(bars)
    level, direction = reference.supertrend(bars, period, multiplier)
    assert_equals_reference(cache[Indicator.supertrend(period, multiplier)], level)
    assert_equals_reference(cache[Indicator.supertrend(period, multiplier, line="direction")], list(direction))


def test_close_is_above_the_supertrend_exactly_while_it_is_up(bars: Bars) -> None:
    cache = IndicatorCache(bars)
    level = cache[Indicator.supertrend(10, 2.0)][10:]
    direction = cache[Indicator.supertrend(10, 2.0, line="direction")][10:]
    assert np.all(np.where(direction > 0, bars.close[10:] >= level, bars.close[10:] <= level))


def test_vwap_by_hand() -> None:
    bars = build_bars([10.0, 20.0, 30.0], high=[10.0, 20.0, 30.0], low=[10.0, 20.0, 30.0], volume=[1.0, 3.0, 0.0])
    expected = [np.nan, (10.0 * 1 + 20.0 * 3) / 4, (20.0 * 3 + 30.0 * 0) / 3]
    np.testing.assert_allclose(IndicatorCache(bars)[Indicator.vwap(2)], expected)


def test_vwap_keeps_no_remainder_of_earlier_volume() -> None:
    volume = [1e9] * 5 + [0.0] * 5 + [1e-3] * 3
    line = IndicatorCache(build_bars(np.linspace(1.0, 2.0, 13), volume=volume))[Indicator.vwap(3)]
    assert np.isnan(line[7:10]).all()
    assert 1.7 < line[-1] < 2.0


def test_still_market_is_neutral_and_not_oversold() -> None:
    cache = IndicatorCache(build_bars(np.full(60, 43210.1)))
    assert cache[Indicator.rsi(14)][-1] == 50.0
    assert cache[Indicator.stochastic(14, 3, 3)][-1] == 50.0
    assert cache[Indicator.stochastic(14, 3, 3, line="d")][-1] == 50.0


def test_rsi_of_nothing_but_losses_stays_zero() -> None:
    assert IndicatorCache(build_bars(np.linspace(100.0, 50.0, 40)))[Indicator.rsi(14)][-1] == 0.0


@pytest.mark.parametrize("indicator", EVERY, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 27])
def test_short_windows_answer_in_full_length(indicator: Indicator, count: int) -> None:
    assert IndicatorCache(random_walk(60).first(count))[indicator].shape == (count,)


@pytest.mark.parametrize("indicator", EVERY, ids=str)
def test_settled_cell_is_valid_and_read_only(indicator: Indicator) -> None:
    line = IndicatorCache(random_walk(300))[indicator]
    assert line.dtype == np.float64 and line.flags.c_contiguous
    assert np.isfinite(line[indicator.settled - 1 :]).all()
    with pytest.raises(ValueError, match="read-only"):
        line[0] = 1.0


@pytest.mark.parametrize("indicator", EVERY, ids=str)
@pytest.mark.parametrize("exponent", [-40, 20])
def test_size_of_prices_does_not_matter(indicator: Indicator, exponent: int) -> None:
    """Scaling by a power of two is exact, so results must be too: an indicator with an absolute epsilon fails here."""
    bars, factor = random_walk(200), 2.0**exponent
    plain, small = IndicatorCache(bars)[indicator], IndicatorCache(scaled(bars, factor))[indicator]
    assert np.array_equal(small, plain, equal_nan=True) or np.array_equal(small / factor, plain, equal_nan=True)


@pytest.mark.parametrize("indicator", EVERY, ids=str)
def test_prefix_equals_the_prefix_of_the_whole(indicator: Indicator) -> None:
    bars = random_walk(200)
    whole = IndicatorCache(bars)[indicator]
    for count in (1, 30, 77, 150, 199):
        assert np.array_equal(IndicatorCache(bars.first(count))[indicator], whole[:count], equal_nan=True)


def counted(name: str, calls: list[str]) -> Callable[..., object]:
    real = getattr(functions, name)

    def call(*inputs: object) -> object:
        calls.append(name)
        return real(*inputs)

    return call


def test_cache_computes_once_for_all_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("RSI", "MACD"):
        monkeypatch.setattr(functions, name, counted(name, calls))
    cache = IndicatorCache(random_walk(100))
    first = cache.select({"a": Indicator.rsi(14), "b": Indicator.macd(12, 26, 9)})
    second = cache.select({"x": Indicator.rsi(14), "y": Indicator.macd(12, 26, 9, line="signal")})
    assert calls == ["RSI", "MACD"]
    assert second["x"] is first["a"]
    assert len(cache) == 4


def test_only_what_is_asked_for_is_computed() -> None:
    assert len(IndicatorCache(random_walk(100))) == 0


def test_indicators_are_values() -> None:
    assert Indicator.rsi(14) == Indicator.rsi(14) != Indicator.rsi(15)
    assert len({Indicator.bollinger(20, 2), Indicator.bollinger(20, 2.0)}) == 1


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Indicator.rsi(1), "rsi: expected a period of 2"),
        (lambda: Indicator.ema(0), "ema: expected a period of 1"),
        (lambda: Indicator.ema(2.0), "found 2.0"),  # type: ignore[arg-type]
        (lambda: Indicator.ema(True), "found True"),
        (lambda: Indicator.sma(100_001), "found 100001"),
        (lambda: Indicator.macd(26, 12, 9), "fast < slow"),
        (lambda: Indicator.macd(12, 26, 9, line="histogramm"), "did you mean 'histogram'"),
        (lambda: Indicator.bollinger(20, 0.0), "factor above 0, found 0.0"),
        (lambda: Indicator.supertrend(10, float("nan")), "found nan"),
        (lambda: Indicator("rsj", (14,)).settled, "did you mean 'rsi'"),
    ],
)
def test_wrong_params_are_refused(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build()


def test_unknown_indicator_in_the_cache_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'rsi'"):
        IndicatorCache(random_walk(50))[Indicator("rsj", (14,))]


def test_what_talib_refuses_names_indicator_and_window() -> None:
    with pytest.raises(StrategyError, match=r"indicator rsi\(1,\) over 30 candles of BTC-USDT 1h"):
        IndicatorCache(random_walk(30))[Indicator("rsi", (1,))]


@pytest.mark.parametrize(
    ("indicator", "candles"),
    [
        (Indicator.sma(20), 20),
        (Indicator.ema(26), 60),  # (1 - 2/27)^60 = 0.0099
        (Indicator.ema(200), 461),  # (1 - 2/201)^461 = 0.0099
        (Indicator.rsi(14), 64),  # (13/14)^63 = 0.0094, and one candle for the first change
        (Indicator.macd(12, 26, 9), 80),  # 60 for the slow average, 21 for the signal, sharing one
        (Indicator.donchian(20), 21),
    ],
)
def test_settled(indicator: Indicator, candles: int) -> None:
    assert indicator.settled == candles
