"""Warm-up: a window of exactly the candles a strategy asks for must answer as one with more history does."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.jobs import Signal
from app.strategies.bars import Bars
from app.strategies.formulas import TAIL_WEIGHT
from app.strategies.verification.comparing import show_signal
from app.strategies.verification.probe import Probe, failed, spread
from app.strategies.verification.report import Check, Reason

#: Largest move of action times strength that counts as none. A settled average still carries TAIL_WEIGHT of what came
#: before the window, and a score is a difference of such averages in ranges, of which the market before may have been
#: several away.
LARGEST_MOVE = 10 * TAIL_WEIGHT

#: Share of the candles that may move further than that. On the gate's markets (300 windows) it is 0.7 % of the answers
#: of ema_cross, none of the other built-ins', and up to 6 % with other params; with half of the warm-up it is 43 % of
#: ema_cross, 46 % of macd, 16 % of rsi_reversion.
MOST_MOVED = 0.1

#: Candles that must speak before their share says anything.
LEAST_SPEAKING = 10


def check_warmup(probe: Probe, series: Sequence[Bars], most: int) -> None:
    """Check a sample of candles.

    Args:
        probe: of the strategy.
        series: to check on; markets that never stand still. Where one does after a move, its ranges shrink, and one
            percent of that move is many of them.
        most: candles to try at most.

    Raises:
        CheckFailedError: too many answers move; names the one that moves most.
    """
    speaking, moved = 0, []
    for bars in series:
        warmup = probe.warmup(bars)
        for end in spread(2 * warmup, len(bars) - 1, max(1, most // len(series))):
            longer = bars.first(end + 1)
            short, long = probe.signal(longer.last(warmup)), probe.signal(longer)
            move = abs(_view(short) - _view(long))
            speaking += bool(short.action or long.action)
            if move > LARGEST_MOVE:
                moved.append((move, end, bars, short, long))
    if speaking >= LEAST_SPEAKING and len(moved) > MOST_MOVED * speaking:
        _, end, bars, short, long = max(moved, key=lambda each: each[0])
        expected = f"with more history the same answer as with the declared {probe.warmup(bars)} candles"
        shown = f"{show_signal(short)} with these and {show_signal(long)} with {end + 1}"
        found = f"{shown}; {len(moved)} of {speaking} answers move by more than {LARGEST_MOVE:g}"
        raise failed(bars, Check.WARMUP, Reason.SHORT, expected, found, end)


def _view(signal: Signal) -> float:
    return signal.action * signal.strength
