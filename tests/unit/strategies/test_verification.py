"""The gate's checks, one by one, in this process: what each catches and says, and that it leaves the right alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

from app.domain.jobs import Signal
from app.domain.strategies import Limits
from app.gate.markets import CANDLES, LIVELY, generate_markets
from app.strategies.bars import Bars
from app.strategies.builtin import BUILTINS
from app.strategies.sdk import Context, Lines, Signals, Strategy
from app.strategies.verification.answers import check_answers
from app.strategies.verification.cost import Cost, check_cost, measure
from app.strategies.verification.determinism import Twin, check_determinism, pick_questions
from app.strategies.verification.prefix import check_prefix
from app.strategies.verification.probe import CheckFailedError, Probe, spread
from app.strategies.verification.report import Check, Finding, Reason
from app.strategies.verification.scale import check_scale
from app.strategies.verification.verification import Material, verify
from app.strategies.verification.warmup import check_warmup
from tests.quant import wrong
from tests.unit.strategies.market import random_walk

WINDOW = 512
SERIES = [random_walk(900, seed=1), random_walk(900, seed=2, price=0.01)]
EVERY = 100_000


def found(check: Callable[[], object]) -> Finding:
    """Return what a check finds; it must find something."""
    with pytest.raises(CheckFailedError) as failed:
        check()
    return failed.value.finding


def probe(cls: type[Strategy]) -> Probe:
    return Probe(cls, WINDOW)


def all_checks(cls: type[Strategy]) -> None:
    asked = probe(cls)
    check_answers(asked, SERIES, 40)
    check_prefix(asked, SERIES, EVERY)
    check_warmup(asked, SERIES, 400)
    check_scale(asked, SERIES, 40)


@pytest.mark.parametrize("cls", [*BUILTINS.values(), wrong.Follows], ids=lambda cls: cls.__name__)
def test_right_strategies_pass(cls: type[Strategy]) -> None:
    all_checks(cls)


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (wrong.PeeksAhead, Reason.PEEKS),
        (wrong.PeeksThroughCentredWindow, Reason.CENTRED),
        (wrong.NormalisesGlobally, Reason.NORMALISED),
    ],
)
def test_look_ahead_is_found_and_told_apart(cls: type[Strategy], reason: Reason) -> None:
    finding = found(lambda: check_prefix(probe(cls), SERIES, EVERY))
    assert (finding.check, finding.reason, finding.symbol, finding.timeframe) == (
        Check.PREFIX,
        reason,
        "BTC-USDT",
        "1h",
    )
    assert finding.time is not None
    assert finding.expected != finding.found


class PeeksOnce(wrong.Follows):
    """Looks one candle ahead at a single candle of all."""

    at_ms = int(SERIES[1].open_time[777])

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        answer = super().signals(bars, indicators)
        at = np.flatnonzero(bars.open_time[:-1] == self.at_ms)
        answer.action[at] = np.where(bars.close[at + 1] > bars.close[at], 1, -1)
        answer.strength[at] = 1.0
        return answer


def test_look_ahead_at_one_single_candle_is_found_and_named() -> None:
    finding = found(lambda: check_prefix(probe(PeeksOnce), SERIES[1:], EVERY))
    assert finding.reason is Reason.PEEKS
    assert finding.time == "1970-02-02T09:00:00+00:00"


class RollsAround(wrong.Follows):
    """Compares with the close before by `np.roll`, which is right but for the first candle."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        atr = indicators["atr"]
        score = (bars.close - np.roll(bars.close, 1)) / np.maximum(atr, bars.close * 1e-6)
        return Signals(np.sign(np.nan_to_num(score)).astype(np.int8), np.minimum(np.abs(np.nan_to_num(score)), 1.0))


def test_cells_before_the_warm_up_do_not_count() -> None:
    check_prefix(probe(RollsAround), SERIES, EVERY)


def test_strategy_asked_candle_by_candle_cannot_peek() -> None:
    asked = probe(wrong.KeepsState)
    check_prefix(asked, SERIES, EVERY)
    assert asked.evaluations == 0


def test_short_warm_up_is_found_with_both_answers() -> None:
    finding = found(lambda: check_warmup(probe(wrong.WarmsUpTooShortly), SERIES, 400))
    assert (finding.check, finding.reason) == (Check.WARMUP, Reason.SHORT)
    assert "100 candles" in finding.expected


@pytest.mark.parametrize(("candles", "is_enough"), [(110, False), (140, False), (231, True), (400, True)])
def test_warm_up_is_enough_where_an_average_has_settled(candles: int, is_enough: bool) -> None:
    class Asks(wrong.WarmsUpTooShortly):
        def candles_needed(self) -> int:
            return candles

    if is_enough:
        check_warmup(probe(Asks), generate_markets()[:LIVELY], 400)
    else:
        assert found(lambda: check_warmup(probe(Asks), generate_markets()[:LIVELY], 400)).reason is Reason.SHORT


class LikesRoundNumbers(wrong.Follows):
    """Is long above a price."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return Signals(np.where(bars.close > 150.0, 1, -1).astype(np.int8), np.full(len(bars), 0.5))


class StopsByPoints(wrong.Follows):
    """Puts its stop ten units below, whatever the price."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return super().signals(bars, indicators)._replace(stop=np.maximum(bars.close - 10.0, 0.001))


@pytest.mark.parametrize("cls", [LikesRoundNumbers, StopsByPoints])
def test_absolute_prices_are_found(cls: type[Strategy]) -> None:
    finding = found(lambda: check_scale(probe(cls), [random_walk(900, seed=3)], 40))
    assert (finding.check, finding.reason) == (Check.SCALE, Reason.SCALED)


class AnswersBadly(wrong.Follows):
    """Answers with something impossible at one candle."""

    at_ms = int(SERIES[0].open_time[500])
    column, value = "strength", np.nan

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        answer = super().signals(bars, indicators)
        values = np.array(answer.strength if self.column == "strength" else bars.close)
        values[bars.open_time == self.at_ms] = self.value
        changes: dict[str, Any] = {self.column: values}
        return answer._replace(**changes)


@pytest.mark.parametrize(
    ("column", "value"),
    [("strength", np.nan), ("strength", 1.5), ("edge", np.inf), ("stop", -1.0), ("target", np.inf)],
)
def test_answer_that_is_none_is_found_at_its_candle(column: str, value: float) -> None:
    cls = type("Bad", (AnswersBadly,), {"column": column, "value": value})
    finding = found(lambda: check_answers(probe(cls), SERIES, 4))
    assert (finding.check, finding.reason, finding.time) == (
        Check.ANSWERS,
        Reason.INVALID,
        "1970-01-21T20:00:00+00:00",
    )
    assert column in finding.expected


class WrongShape(wrong.Follows):
    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        return Signals(np.ones(3, np.int8), np.ones(3))


class RaisesSometimes(Strategy):
    def on_candle(self, context: Context) -> Signal:
        raise ZeroDivisionError("no volume")


@pytest.mark.parametrize(("cls", "reason"), [(WrongShape, Reason.INVALID), (RaisesSometimes, Reason.RAISED)])
def test_answers_that_are_no_signals_are_found(cls: type[Strategy], reason: Reason) -> None:
    assert found(lambda: check_answers(probe(cls), SERIES, 4)).reason is reason


def twin_of(cls: type[Strategy], questions: list[Bars], shifts: int = 1) -> Twin:
    plain = [probe(cls).signal(bars) for bars in questions]
    return Twin(plain, [plain] * shifts)


def determinism(cls: type[Strategy], twin: Callable[[list[Bars]], Twin | None]) -> None:
    asked, questions = probe(cls), pick_questions(SERIES, WINDOW, 12)
    check_determinism(asked, questions, [asked.signal(bars) for bars in questions], twin(questions))


def test_same_answers_everywhere_pass() -> None:
    determinism(wrong.Follows, lambda questions: twin_of(wrong.Follows, questions))


def test_other_answers_of_another_process_are_random() -> None:
    finding = found(lambda: determinism(wrong.IsRandom, lambda questions: twin_of(wrong.IsRandom, questions)))
    assert (finding.check, finding.reason) == (Check.DETERMINISM, Reason.RANDOM)


def test_answers_that_change_with_the_clock_alone_look_at_the_clock() -> None:
    def twin(questions: list[Bars]) -> Twin:
        plain = twin_of(wrong.Follows, questions).plain
        return Twin(plain, [plain, [Signal(action=0, strength=0.0)] * len(plain)])

    assert found(lambda: determinism(wrong.Follows, twin)).reason is Reason.CLOCK


def test_counting_is_state_on_an_instance_and_in_a_module() -> None:
    def counting(shared: bool) -> type[Strategy]:
        class Counts(Strategy):
            number = count() if shared else None

            def __init__(self, *given: object, **named: object) -> None:
                super().__init__()
                self.own = self.number or count()

            def on_candle(self, context: Context) -> Signal:
                return Signal(action=1, strength=1 / (1 + next(self.own)))

        return Counts

    for shared in (False, True):
        # the other process begins to count anew
        here, there = counting(shared), counting(shared)
        finding = found(partial(determinism, here, partial(twin_of_fresh, there)))
        assert finding.reason is Reason.STATE


def twin_of_fresh(cls: type[Strategy], questions: list[Bars]) -> Twin:
    asked = probe(cls)
    plain = [asked.signal(bars) for bars in questions]
    return Twin(plain, [])


def test_other_process_without_answers_is_a_finding() -> None:
    assert found(lambda: determinism(wrong.Follows, lambda _: None)).reason is Reason.RANDOM


def test_questions_take_turns_among_series() -> None:
    questions = pick_questions(SERIES, WINDOW, 12)
    assert len(questions) == 12
    assert [bars.close[-1] > 1.0 for bars in questions] == [True, False] * 6
    assert all(len(bars) <= WINDOW for bars in questions)


def test_cost_is_measured_by_the_clock_that_is_handed_over() -> None:
    ticks = count(step=0.25)  # every look at the clock is a quarter of a second later
    timed = measure(probe(wrong.Follows), SERIES * 10, Limits(), clock=lambda: next(ticks))
    assert timed.cost.mean_ms == 250.0
    assert len(timed.answers) == 5  # no need to ask more often
    finding = found(lambda: check_cost(timed.cost, Limits(p95_ms=100), SERIES[0]))
    assert (finding.check, finding.reason) == (Check.COST, Reason.SLOW)
    check_cost(timed.cost, Limits(p95_ms=250), SERIES[0])


def test_memory_is_held_against_its_limit() -> None:
    cost = Cost(mean_ms=1.0, p95_ms=1.0, memory_mb=65.0)
    assert found(lambda: check_cost(cost, Limits(memory_mb=64), SERIES[0])).reason is Reason.MEMORY
    check_cost(cost, Limits(memory_mb=65), SERIES[0])


def test_report_says_what_was_measured_whatever_came_of_it() -> None:
    asked = probe(wrong.PeeksAhead)
    questions = pick_questions(SERIES, WINDOW, 48)
    report = verify("ahead", asked, Material(SERIES, twin_of(wrong.PeeksAhead, questions), Limits(p95_ms=60_000)))
    assert (report.passed, report.finding is not None) == (False, True)
    assert (report.figures.candles, report.figures.evaluations) == (1800, asked.evaluations)
    document = report.document()
    assert document["verdict"] == "rejected"
    assert document["finding"]["reason"] == "peeks_ahead"
    assert document["figures"]["mean_ms"] > 0


def test_generated_markets_are_ten_thousand_candles_of_several_characters() -> None:
    calm, trend, cheap, still = generate_markets()
    assert sum(map(len, generate_markets())) == 4 * CANDLES == 10_000
    assert trend.close[-1] > 5 * trend.close[0]
    stands = still.high == still.low
    assert 0.1 < stands.mean() < 0.2
    assert (still.volume[stands] == 0.0).all()
    assert cheap.close.max() < calm.close.max()
    for bars in generate_markets():
        assert (bars.low > 0).all()
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()


@pytest.mark.parametrize(
    ("first", "last", "most", "places"), [(0, 3, 9, [0, 1, 2, 3]), (5, 4, 9, []), (0, 10, 2, [0, 10])]
)
def test_places_are_spread(first: int, last: int, most: int, places: list[int]) -> None:
    assert spread(first, last, most) == places
