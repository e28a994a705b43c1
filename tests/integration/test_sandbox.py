"""The gate's processes: ten wrong strategies are caught for the right reason, shipped ones pass, nothing escapes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.definitions import load_definitions
from app.domain.strategies import Limits
from app.gate.markets import generate_markets
from app.gate.sandbox import replay_all, verify_all
from app.gate.wire import Case
from app.operations import BUILTIN_DEFINITIONS
from app.strategies.registry import Registry
from app.strategies.verification.report import Check, Reason, Report
from tests.quant import wrong

PREFIXES = ("tests.quant",)
WINDOW = 512

#: Far above what a busy machine makes of a quick strategy.
PATIENT = Limits(p95_ms=2000, timeout_ms=20_000)

WRONG = {
    "PeeksAhead": (Check.PREFIX, Reason.PEEKS),
    "PeeksThroughCentredWindow": (Check.PREFIX, Reason.CENTRED),
    "NormalisesGlobally": (Check.PREFIX, Reason.NORMALISED),
    "IsRandom": (Check.DETERMINISM, Reason.RANDOM),
    "LooksAtTheClock": (Check.DETERMINISM, Reason.CLOCK),
    "WarmsUpTooShortly": (Check.WARMUP, Reason.SHORT),
    "KeepsState": (Check.DETERMINISM, Reason.STATE),
    "IsSlow": (Check.COST, Reason.SLOW),
    "HogsMemory": (Check.COST, Reason.MEMORY),
    "CallsHome": (Check.ACCESS, Reason.NETWORK),
}

REACHING = {
    "ReadsAFile": (Check.ACCESS, Reason.FILE),
    "WritesAFile": (Check.ACCESS, Reason.FILE),
    "ListsAFolder": (Check.ACCESS, Reason.FILE),
    "StartsAProcess": (Check.ACCESS, Reason.PROCESS),
    "Forks": (Check.ACCESS, Reason.PROCESS),
    "ReadsItsFileAtImport": None,
    "ReadsTheDate": (Check.DETERMINISM, Reason.CLOCK),
    "DependsOnHashes": (Check.DETERMINISM, Reason.RANDOM),
    "UsesGlobalRandomness": (Check.DETERMINISM, Reason.RANDOM),
    "Segfaults": (Check.COST, Reason.DIED),
    "Exits": (Check.COST, Reason.DIED),
    "CannotBeBuilt": (Check.BUILD, Reason.UNUSABLE),
    "NotThere": (Check.BUILD, Reason.UNUSABLE),
}


def case(module: str, name: str, limits: Limits = PATIENT) -> Case:
    return Case(name=name.lower(), implementation=f"tests.quant.{module}:{name}", params={}, limits=limits)


def verify(cases: Sequence[Case]) -> dict[str, Report]:
    reports = verify_all(cases, (), PREFIXES, WINDOW)
    return {report.strategy: report for report in reports}


def reason(report: Report) -> tuple[Check, Reason] | None:
    return None if report.finding is None else (report.finding.check, report.finding.reason)


def test_each_wrong_strategy_is_caught_for_the_right_reason() -> None:
    slow = Limits(p95_ms=100, timeout_ms=20_000)
    reports = verify([case("wrong", name, slow if name == "IsSlow" else PATIENT) for name in WRONG])
    assert {name: reason(reports[name.lower()]) for name in WRONG} == WRONG
    for report in reports.values():
        assert report.finding is not None
        assert (report.passed, report.verdict) == (False, "rejected")
        assert report.finding.hint
        assert report.finding.symbol in {bars.symbol for bars in generate_markets()}
        assert report.finding.time is not None


def of_a_composite(analyzer: str) -> Case:
    params = {"analyzers": {"a": {"implementation": analyzer}}, "gate": {"timeframe": "4h", "period": 5}}
    return Case(name=f"mix-{analyzer}", implementation="composite", params=params, limits=PATIENT)


def test_higher_timeframes_and_composites_are_looked_through() -> None:
    peeks, short = "PeeksIntoTheHigherCandle", "WarmsUpTooShortlyForTheHigher"
    cases = [case("higher", name) for name in ("FollowsHigher", peeks, short)]
    cases += [of_a_composite(name) for name in ("macd", "tests.quant.wrong:PeeksAhead", "tests.quant.wrong:CallsHome")]
    cases += [of_a_composite("tests.quant.wrong:LooksAtTheClock")]
    assert [reason(report) for report in verify(cases).values()] == [
        None,
        (Check.PREFIX, Reason.CENTRED),
        (Check.WARMUP, Reason.SHORT),
        None,
        (Check.PREFIX, Reason.PEEKS),
        (Check.ACCESS, Reason.NETWORK),
        (Check.DETERMINISM, Reason.CLOCK),
    ]


def test_none_of_the_shipped_strategies_is_caught() -> None:
    shipped = [each.definition for each in load_definitions(BUILTIN_DEFINITIONS, Registry())]
    cases = [
        Case(name=each.name, implementation=each.implementation, params=each.params, limits=PATIENT) for each in shipped
    ]
    reports = verify([*cases, case("wrong", "Follows")])
    assert {name: reason(report) for name, report in reports.items()} == dict.fromkeys(reports)
    assert len(reports) == len(shipped) + 1
    for report in reports.values():
        assert report.figures.candles == 10_000
        assert (report.figures.evaluations or 0) > 10_000  # every candle was the end of a prefix


def test_what_a_strategy_reaches_for_is_refused_and_what_it_breaks_stays_in_its_process() -> None:
    reports = verify([case("reaching", name) for name in REACHING])
    assert {name: reason(reports[name.lower()]) for name in REACHING} == REACHING
    died = reports["segfaults"].finding
    assert died is not None
    assert "SIGSEGV" in died.found
    assert died.time is not None


@pytest.mark.parametrize("name", ["HangsInC", "SleepsTooLong"])
def test_strategy_that_does_not_answer_is_ended(name: str) -> None:
    (report,) = verify([case("reaching", name, Limits(timeout_ms=200))]).values()
    assert reason(report) == (Check.COST, Reason.SLOW)
    assert report.finding is not None
    assert "200 ms" in report.finding.expected + report.finding.found


def test_every_wrong_strategy_is_among_the_ten() -> None:
    defined = {name for name, value in vars(wrong).items() if getattr(value, "__module__", "") == wrong.__name__}
    assert defined - {"follow", "Follows"} == set(WRONG)


def test_replay_answers_or_says_why_not() -> None:
    bars = generate_markets()[0].first(600)
    good, raises, dies = replay_all(
        [case("wrong", "Follows"), case("misbehaving", "Raises"), case("reaching", "Segfaults")], bars, PREFIXES
    )
    assert good.signal is not None
    assert (raises.signal, raises.error is not None and raises.error.startswith("ValueError")) == (None, True)
    assert (dies.signal, "SIGSEGV" in (dies.error or "")) == (None, True)
