"""Scale: a market quoted in other units is the same market. Prices times a factor change no view.

Only upwards: TA-Lib takes tiny variances for zero (TA_EPSILON, 1e-14), which is not the strategy's fault.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.jobs import Signal
from app.strategies.bars import Bars
from app.strategies.verification.comparing import find_difference, show_signal
from app.strategies.verification.probe import Probe, failed, spread
from app.strategies.verification.report import Check, Reason

#: What prices are multiplied by. Powers of two change no digit of any float: where two values tie, any other factor
#: would let rounding decide, and in real markets, which stand still for hours, values tie often.
FACTORS = (16.0, 1024.0)


def check_scale(probe: Probe, series: Sequence[Bars], most: int) -> None:
    """Check a sample of candles: action, strength and edge stay, stop and target scale.

    Args:
        probe: of the strategy.
        series: to check on.
        most: candles to try at most.

    Raises:
        CheckFailedError: an answer changes; the first such candle.
    """
    for bars in series:
        for end in spread(probe.warmup(bars) - 1, len(bars) - 1, max(1, most // len(series))):
            window = bars.first(end + 1).last(probe.window)
            plain = probe.signal(window)
            for factor in FACTORS:
                _compare(window, plain, probe.signal(scale(window, factor)), factor)


def scale(bars: Bars, factor: float) -> Bars:
    """Return the bars with every price multiplied; volume stays."""
    prices = (bars.open * factor, bars.high * factor, bars.low * factor, bars.close * factor)
    return Bars(bars.symbol, bars.timeframe, bars.open_time, *prices, bars.volume)


def _compare(bars: Bars, plain: Signal, scaled: Signal, factor: float) -> None:
    levels = {name: _divided(getattr(scaled, name), factor) for name in ("stop", "target")}
    back = scaled.model_copy(update={**levels, "extras": plain.extras})  # extras may hold prices
    difference = find_difference(plain, back)
    if difference is not None:
        expected = f"the same view of prices times {factor:g} ({show_signal(plain)})"
        found = f"{show_signal(scaled)}: {difference} when scaled back"
        raise failed(bars, Check.SCALE, Reason.SCALED, expected, found)


def _divided(value: float | None, factor: float) -> float | None:
    return None if value is None else value / factor
