"""Determinism: equal windows give equal signals; whoever asks, when, how often, in which order and in which process.

The gate stops the clock while it asks, so what differs between two processes is random; what then depends on when or
after what it is asked is state; and what changes with the clock alone looks at the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from app.domain.jobs import Signal
from app.strategies.bars import Bars
from app.strategies.sdk import Strategy
from app.strategies.verification.comparing import find_difference
from app.strategies.verification.probe import CheckFailedError, Probe, failed, spread
from app.strategies.verification.report import Check, Reason


class Twin(NamedTuple):
    """The answers of another process to the same questions."""

    plain: Sequence[Signal]
    """With the clock at the same moment."""
    shifted: Sequence[Sequence[Signal]]
    """With the clock at other moments."""


def pick_questions(series: Sequence[Bars], window: int, count: int) -> list[Bars]:
    """Return windows to ask about, from all series in turn: a strategy that keeps something mixes them up."""
    each = max(2, count // len(series))
    ends = [[(bars, end) for end in spread(len(bars) // 4, len(bars) - 1, each)] for bars in series]
    # `zip` would leave out what longer series have more
    turns = [row[turn] for turn in range(each) for row in ends if turn < len(row)]
    return [bars.first(end + 1).last(window) for bars, end in turns]


def answer(probe: Probe, questions: Iterable[Bars], strategy: Strategy | None = None) -> list[Signal]:
    """Return the answers, in order.

    Raises:
        CheckFailedError: as `Probe.signal`.
    """
    return [probe.signal(bars, strategy) for bars in questions]


def check_determinism(probe: Probe, questions: Sequence[Bars], answers: Sequence[Signal], twin: Twin | None) -> None:
    """Ask again in every way that must not matter.

    Args:
        probe: of the strategy; its instance has answered already.
        questions: the windows.
        answers: the first answers of this process.
        twin: those of another one.

    Raises:
        CheckFailedError: random, state or clock; the first candle that differs.
    """
    if twin is None:
        raise _different(questions[0], Reason.RANDOM, "in another process", "none from that process")
    _compare(questions, answers, twin.plain, Reason.RANDOM, "in another process")
    again = answer(probe, questions)
    _compare(questions, answers, again, Reason.STATE, "when the same instance is asked again")
    fresh = answer(probe, questions, probe.make())
    _compare(questions, answers, fresh, Reason.STATE, "from a fresh instance")
    backwards = answer(probe, questions[::-1], probe.make())[::-1]
    _compare(questions, answers, backwards, Reason.STATE, "when the candles come in another order")
    for shifted in twin.shifted:
        _compare(questions, answers, shifted, Reason.CLOCK, "when the clock shows another time")


def _compare(
    questions: Sequence[Bars], first: Sequence[Signal], second: Sequence[Signal], reason: Reason, when: str
) -> None:
    for bars, one, two in zip(questions, first, second, strict=True):
        difference = find_difference(one, two)
        if difference is not None:
            raise _different(bars, reason, when, difference)


def _different(bars: Bars, reason: Reason, when: str, difference: str) -> CheckFailedError:
    return failed(bars, Check.DETERMINISM, reason, f"the same answer {when}", difference)
