"""Composites: what a definition may say, the arithmetic of the rules, what is computed, and that the gate agrees."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.definitions import load_definitions
from app.domain.candles import Timeframe
from app.errors import ConfigurationError, InvalidSignalError, StrategyError
from app.gate.markets import LIVELY, generate_markets
from app.strategies import indicators as indicators_module
from app.strategies.bars import Bars
from app.strategies.builtin import BUILTINS
from app.strategies.composite.rules import hold
from app.strategies.evaluation import evaluate
from app.strategies.fingerprint import Fingerprint, find_modules, take_fingerprint
from app.strategies.indicators import IndicatorCache
from app.strategies.registry import Registry
from app.strategies.sdk import ActionArray, Context, Lines, Signal, Signals, Strategy
from app.strategies.verification.prefix import check_prefix
from app.strategies.verification.probe import Probe
from app.strategies.verification.warmup import check_warmup
from tests.unit.strategies.market import build_bars, random_walk

EXAMPLE = Path(__file__).parents[3] / "config" / "composite.toml"
REGISTRY = Registry(("tests.unit.strategies", "quants"))
HERE = "tests.unit.strategies.test_composite"


class Says(Strategy):
    """Says what its params say, candle by candle in turn."""

    class Params(Strategy.Params):
        """Views, the last one for all candles after it; and levels."""

        views: tuple[float, ...]
        edge: float | None = None
        stop: float | None = None
        target: float | None = None

    params: Params

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        views = np.array([*self.params.views, *[self.params.views[-1]] * len(bars)])[: len(bars)]
        levels = (self.params.edge, self.params.stop, self.params.target)
        columns = (None if level is None else np.full(len(bars), level) for level in levels)
        return Signals(np.sign(views).astype(np.int8), np.abs(views), *columns)  # type: ignore[arg-type]


class OneByOne(Strategy):
    """Asked candle by candle: long when the close has risen."""

    reach = 1

    def on_candle(self, context: Context) -> Signal:
        before = float(context.bars.close[context.index - 1])
        return Signal(action=1 if context.close > before else -1, strength=0.5, stop=context.close / 2)


class Overdoes(Says):
    """Is surer than sure."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        answer = super().signals(bars, indicators)
        return answer._replace(strength=answer.strength * 3)


class Stumbles(Says):
    """Raises."""

    def signals(self, bars: Bars, indicators: Lines) -> Signals:
        raise ZeroDivisionError("no volume")


def says(*views: float, weight: float = 1.0, cls: str = "Says", **levels: float) -> dict[str, Any]:
    return {"implementation": f"{HERE}:{cls}", "weight": weight, "params": {"views": list(views), **levels}}


def composite(analyzers: dict[str, Any], **rules: Any) -> Strategy:
    return REGISTRY.create("composite", {"analyzers": analyzers, "hold": 0, **rules}, name="mix")


def answer(strategy: Strategy, bars: Bars) -> Signals:
    return strategy.signals(bars, IndicatorCache(bars).select(strategy.declared))


def actions(strategy: Strategy, count: int) -> list[int]:
    return actions_on(strategy, random_walk(count))


def actions_on(strategy: Strategy, bars: Bars) -> list[int]:
    return [int(action) for action in answer(strategy, bars).action]


def test_score_is_the_weighted_mean_of_the_views() -> None:
    mix = composite({"a": says(1.0, weight=3.0), "b": says(-0.2), "c": says(0.0)}, entry={"long": 0.5})
    signal = evaluate(mix, random_walk(5))
    assert signal.action == 1
    assert signal.strength == pytest.approx((3.0 - 0.2) / 5)
    assert signal.extras == {"score": pytest.approx(0.56), "analyzers": {"a": 1.0, "b": -0.2, "c": 0.0}}


def test_thresholds_are_apart_for_long_and_short() -> None:
    rules = {"entry": {"long": 0.3, "short": 0.8}, "exit": {"long": 0.0, "short": 0.0}}
    assert actions(composite({"a": says(0.3, -0.3, 0.29, -0.8, -0.79)}, **rules), 5) == [1, 0, 0, -1, 0]


def test_enough_analyzers_must_agree() -> None:
    analyzers = {"a": says(1.0, weight=9.0), "b": says(-0.1, 0.1)}
    assert actions(composite(analyzers, entry={"agree": 2}), 3) == [0, 1, 1]


@pytest.mark.parametrize(("sides", "expected"), [("long", [1, 0]), ("short", [0, -1]), ("both", [1, -1])])
def test_side_that_is_not_wanted_is_not_taken(sides: str, expected: list[int]) -> None:
    assert actions(composite({"a": says(1.0, -1.0)}, sides=sides), 2) == expected


def test_side_is_held_until_it_is_left_or_the_other_is_taken_or_time_is_up() -> None:
    rules = {"entry": {"long": 0.5, "short": 0.5}, "exit": {"long": 0.1, "short": 0.1}, "hold": 3}
    views = (0.6, 0.3, 0.1, 0.3, 0.5, 0.2, 0.2, 0.2, 0.2, 0.7, -0.5, -0.2, -0.1, -0.2)
    mix = composite({"a": says(*views)}, **rules)
    #                            left                time is up, taken, other, held, left
    assert actions(mix, 14) == [1, 1, 0, 0, 1, 1, 1, 1, 0, 1, -1, -1, 0, 0]
    assert answer(mix, random_walk(14)).strength.tolist()[:3] == [0.6, 0.3, 0.0]


def held_step_by_step(entry: ActionArray, long: Any, short: Any, candles: int) -> list[int]:
    """Return what a machine with a memory does, started at the oldest candle."""
    side, age, found = 0, 0, []
    for taken, leaves_long, leaves_short in zip(entry.tolist(), long, short, strict=True):
        age += 1
        if taken:
            side, age = taken, 0
        elif age > candles or (side > 0 and leaves_long) or (side < 0 and leaves_short):
            side = 0
        found.append(side)
    return found


cells = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, -1]), st.booleans(), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None)
@given(cells, st.integers(0, 8))
def test_holding_is_what_a_machine_with_a_memory_does(rows: list[tuple[int, bool, bool]], candles: int) -> None:
    entry = np.array([row[0] for row in rows], np.int8)
    # who takes a side does not leave it at the same candle: exit thresholds are below entry thresholds
    long, short = (np.array([row[place] and not row[0] for row in rows]) for place in (1, 2))
    whole = hold(entry, long, short, candles)
    assert whole.tolist() == held_step_by_step(entry, long, short, candles)
    for start in range(len(rows) - candles):  # a window that begins later says the same after `candles`
        part = hold(entry[start:], long[start:], short[start:], candles)
        assert part[candles:].tolist() == whole[start + candles :].tolist()


def test_edge_is_the_mean_and_levels_are_the_nearest_of_those_who_agree() -> None:
    analyzers = {
        "a": says(1.0, -1.0, weight=3.0, edge=2.0, stop=90.0, target=120.0),
        "b": says(0.5, -0.5, edge=1.0, stop=95.0, target=110.0),
        "c": says(-0.5, 0.5, edge=50.0, stop=99.0, target=101.0),
        "d": says(0.1, -0.1),
    }
    long, short = (answer(composite(analyzers), random_walk(2)) for _ in range(2))
    assert long.edge is not None and long.stop is not None and long.target is not None
    assert (long.edge[0], long.stop[0], long.target[0]) == (1.75, 95.0, 110.0)
    assert short.edge is not None and short.stop is not None and short.target is not None
    assert (short.action[1], short.edge[1], short.stop[1], short.target[1]) == (-1, 1.75, 90.0, 120.0)


def test_columns_that_nobody_states_are_not_stated() -> None:
    signals = answer(composite({"a": says(1.0)}), random_walk(3))
    assert (signals.edge, signals.stop, signals.target) == (None, None, None)


def test_volatility_outside_its_band_keeps_entries_back() -> None:
    swing = np.r_[np.full(60, 1.0), np.full(60, 8.0)]
    close = 100.0 + np.where(np.arange(120) % 2, swing, -swing)
    filters = {"volatility": {"period": 2, "least_percent": 0.5, "most_percent": 5.0}}
    found = np.array(actions_on(composite({"a": says(1.0)}, filters=filters), build_bars(close)))
    assert found[10:60].all() and not found[70:].any()


def test_volume_under_its_floor_keeps_entries_back() -> None:
    volume = np.array([10.0, 10.0, 10.0, 4.0, 10.0, 10.0])
    mix = composite({"a": says(1.0)}, filters={"volume": {"period": 2, "least_percent": 100.0}})
    assert actions_on(mix, build_bars(np.full(6, 100.0), volume=volume)) == [0, 1, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [((1, 3), [1, 2]), ((22, 2), [0, 1, 22, 23]), ((20, 24), [20, 21, 22, 23]), ((0, 2), [0, 1])],
)
def test_session_is_about_the_hour_in_which_a_candle_closes(hours: tuple[int, int], expected: list[int]) -> None:
    session = {"from_hour": hours[0], "to_hour": hours[1]}
    found = actions_on(composite({"a": says(1.0)}, filters={"session": session}), random_walk(24))
    assert sorted((place + 1) % 24 for place, action in enumerate(found) if action) == expected


def test_trend_of_the_higher_timeframe_must_agree() -> None:
    close = np.r_[np.linspace(100, 200, 100), np.linspace(200, 100, 100)]
    gate = {"timeframe": "4h", "period": 5}
    analyzers = {"a": says(*[1.0, -1.0] * 100)}
    found = np.array(actions_on(composite(analyzers, gate=gate), build_bars(close)))
    assert found[40:90].tolist() == [1, 0] * 25
    assert found[120:].tolist() == [0, -1] * 40


def test_analyzer_that_is_asked_candle_by_candle_says_what_it_says_alone() -> None:
    bars, alone = random_walk(40), OneByOne()
    mix = composite({"a": {"implementation": f"{HERE}:OneByOne"}}, entry={"long": 0.5}, exit={"long": 0.0})
    said = answer(mix, bars)
    for end in range(2, 41):
        signal = evaluate(alone, bars.first(end))
        assert (said.action[end - 1], said.strength[end - 1]) == (signal.action, signal.strength)
        assert said.stop is not None and said.stop[end - 1] == signal.stop


@pytest.mark.parametrize("name", BUILTINS)
def test_every_built_in_says_as_analyzer_what_it_says_alone(name: str) -> None:
    bars, alone = random_walk(600), BUILTINS[name]()
    rules = {"entry": {"long": 1e-6, "short": 1e-6}, "exit": {"long": 0.0, "short": 0.0}}
    mix, spoke = composite({"a": {"implementation": name}}, **rules), 0
    for end in range(300, 600, 2):
        signal, expected = (evaluate(each, bars.first(end)) for each in (mix, alone))
        assert (signal.action, signal.strength) == (expected.action, expected.strength)
        if signal.action:
            assert (signal.stop, signal.target, signal.edge) == (expected.stop, expected.target, expected.edge)
            spoke += 1
    assert spoke


def count_computations(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counted: Counter[str] = Counter()
    compute = indicators_module._compute

    def counting(family: Any, indicator: Any, bars: Bars) -> Any:
        counted[f"{indicator.name}{indicator.params}{indicator.timeframe}"] += 1
        return compute(family, indicator, bars)

    monkeypatch.setattr(indicators_module, "_compute", counting)
    return counted


def test_only_indicators_in_use_are_computed_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, bars = count_computations(monkeypatch), random_walk(512)
    analyzers = {"a": {"implementation": "macd"}, "b": {"implementation": "ema_cross", "params": {"slow": 40}}}
    filters, cache = {"volatility": {"period": 14}}, IndicatorCache(bars)
    evaluate(composite(analyzers, filters=filters), bars, cache)
    evaluate(composite({"c": {"implementation": "macd"}}), bars, cache)
    assert counted == {"macd(12, 26, 9)": 1, "ema(12,)": 1, "ema(40,)": 1, "atr(14,)": 1}


def test_gate_and_filters_are_computed_where_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, bars = count_computations(monkeypatch), random_walk(512)
    evaluate(composite({"a": says(1.0)}, gate={"timeframe": "4h", "period": 9}), bars)
    assert counted == {"candle(0,)4h": 1, "ema(9,)4h": 1}


def test_analyzers_see_their_own_lines_under_their_own_names() -> None:
    mix = composite({"a": {"implementation": "ema_cross"}, "b": {"implementation": "ema_cross", "params": {"fast": 3}}})
    assert {"analyzers.a.fast", "analyzers.b.fast"} <= set(mix.declared)
    assert mix.declared["analyzers.a.fast"] != mix.declared["analyzers.b.fast"]


def test_warm_up_is_the_slowest_plus_the_hold() -> None:
    mix = composite({"a": {"implementation": "ema_cross"}, "b": {"implementation": "macd"}}, hold=10)
    assert mix.warmup == BUILTINS["macd"]().warmup + 10
    gated = composite({"a": {"implementation": "ema_cross"}}, hold=10, gate={"timeframe": "4h", "period": 30})
    assert gated.warmups[Timeframe.H1] == (70 + 1) * 4 - 1 + 10
    assert Timeframe.H4 not in gated.warmups


@pytest.mark.parametrize("hold_candles", [0, 48])
def test_the_gate_lets_composites_pass(hold_candles: int) -> None:
    analyzers = {"a": {"implementation": "ema_cross"}, "b": {"implementation": "macd"}}
    rules = {"entry": {"long": 0.3, "short": 0.3}, "gate": {"timeframe": "4h", "period": 5}, "hold": hold_candles}
    probe = Probe(lambda: composite(analyzers, **rules), 512)
    check_prefix(probe, [bars.first(800) for bars in generate_markets()], 100_000)
    check_warmup(probe, generate_markets()[:LIVELY], 200)


def test_answer_does_not_depend_on_the_order_of_the_analyzers() -> None:
    analyzers = {name: {"implementation": name, "weight": 0.1 * n} for n, name in enumerate(BUILTINS, 1)}
    backwards = dict(reversed(analyzers.items()))
    first, second = (answer(composite(each), random_walk(512)) for each in (analyzers, backwards))
    assert [one.tobytes() for one in first.columns if one is not None] == [
        two.tobytes() for two in second.columns if two is not None
    ]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, r"params\.analyzers: this key is required"),
        ({"analyzers": {}}, r"params\.analyzers: .*at least 1"),
        ({"analyzers": {"a": {"implementation": "macdd"}}}, r"params\.analyzers\.a\.implementation: .*mean 'macd'\?"),
        ({"analyzers": {"a": {"implementation": "composite"}}}, r"analyzers\.a\.implementation: .*no composite itself"),
        (
            {"analyzers": {"a": {"implementation": "macd", "params": {"fsat": 3}}}},
            r"params\.analyzers\.a\.params\.fsat: unknown key: did you mean 'fast'\?",
        ),
        ({"analyzers": {"a": {"implementation": "macd", "wieght": 3}}}, r"analyzers\.a\.wieght: .*mean 'weight'\?"),
        ({"analyzers": {"A": {"implementation": "macd"}}}, r"params\.analyzers\.A"),
        (
            {"analyzers": {"a": {"implementation": "macd", "weight": 0}}},
            r"a\.weight: .*found 0; allowed: number, above 0",
        ),
        ({"entry": {"long": 0.2}}, r"exit\.long must be below entry\.long, found 0\.2 and 0\.2"),
        ({"entry": {"agree": 2}}, r"entry\.agree must not exceed the 1 analyzers, found 2"),
        ({"filters": {"session": {"from_hour": 3, "to_hour": 3}}}, r"filters\.session: .*must differ, found 3 twice"),
        ({"filters": {"volatility": {"least_percent": 9.0, "most_percent": 1.0}}}, r"least_percent must be below"),
        ({"filters": {"volatilty": {}}}, r"params\.filters\.volatilty: unknown key: did you mean 'volatility'\?"),
        ({"filters": {"volume": {"periode": 3}}}, r"filters\.volume\.periode: unknown key: did you mean 'period'\?"),
        ({"gate": {"timeframe": "5h"}}, r"params\.gate\.timeframe"),
        ({"gate": {"timeframe": "1m"}}, r"unknown higher timeframe '1m'"),
    ],
)
def test_wrong_composites_are_explained(params: dict[str, Any], words: str) -> None:
    valid = {"analyzers": {"a": {"implementation": "macd"}}} if "analyzers" not in params and params else {}
    with pytest.raises(ConfigurationError, match=words):
        REGISTRY.create("composite", {**valid, **params}, name="mix")


def test_everything_wrong_with_the_analyzers_is_named_together() -> None:
    analyzers = {"a": {"implementation": "macd", "params": {"fast": 1}}, "b": {"implementation": "nothing"}}
    with pytest.raises(
        ConfigurationError, match=r"analyzers\.a\.params\.fast: .*; params\.analyzers\.b\.implementation"
    ):
        composite(analyzers)


def test_nonsense_of_an_analyzer_names_it_and_the_candle() -> None:
    mix = composite({"loud": says(0.5, cls="Overdoes")}, hold=2)
    with pytest.raises(
        InvalidSignalError, match=r"strategy 'mix\.loud' on .* 1970-01-01T02.*expected .*found 1 and .*1.5"
    ):
        evaluate(mix, random_walk(5))


def test_error_of_an_analyzer_names_it() -> None:
    with pytest.raises(StrategyError, match=r"analyzer 'mix\.weak' raised ZeroDivisionError: no volume"):
        evaluate(composite({"weak": says(0.5, cls="Stumbles")}), random_walk(5))


def test_example_is_loaded_with_the_provenance_of_every_value() -> None:
    (loaded,) = load_definitions(EXAMPLE, Registry())
    provenance = {key: origin.value for key, origin in loaded.provenance.items()}
    assert provenance["params.hold"] == "base"
    assert provenance["params.analyzers.cross.params.fast"] == "strategy"
    assert provenance["params.analyzers.cross.params.atr_period"] == "default"
    assert provenance["params.gate.timeframe"] == "strategy"
    assert loaded.definition.params["analyzers"]["momentum"] == {
        "implementation": "macd",
        "params": {"fast": 12, "slow": 26, "signal": 9, "atr_period": 14},
        "weight": 1.0,
    }


def test_composite_of_the_manual_is_loaded(tmp_path: Path) -> None:
    manual = (EXAMPLE.parents[1] / "docs" / "strategies.md").read_text()
    (block,) = (text for text in re.findall(r"```toml\n(.*?)```", manual, re.DOTALL) if "[strategies.mix]" in text)
    path = tmp_path / "mix.toml"
    path.write_text(block.replace("dip_buyer.strategy:DipBuyer", f"{HERE}:OneByOne"))
    (loaded,) = load_definitions(path, REGISTRY)
    assert set(loaded.definition.params["analyzers"]) == {"cross", "momentum", "mine"}


@pytest.fixture
def quants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "quants").mkdir()
    (tmp_path / "quants" / "__init__.py").write_text("")
    path = tmp_path / "quants" / "view.py"
    source = Path(__file__).read_text()
    code = source[source.index("class OneByOne") : source.index("class Overdoes")]
    path.write_text(f"from app.strategies.sdk import Context, Signal, Strategy\n\n{code}")
    yield path
    for name in [name for name in sys.modules if name.partition(".")[0] == "quants"]:
        del sys.modules[name]


def take() -> Fingerprint:
    analyzers = {"a": {"implementation": "quants.view:OneByOne"}, "b": {"implementation": "macd"}}
    return take_fingerprint(composite(analyzers), ("quants",))


def test_fingerprint_covers_the_code_of_the_analyzers_and_its_own(quants: Path) -> None:
    before = take()
    assert before == take()
    analyzers = {"a": {"implementation": "quants.view:OneByOne"}, "b": {"implementation": "macd"}}
    modules = find_modules(composite(analyzers), ("quants",))
    assert {"quants.view", "app.strategies.builtin.macd"} < set(modules)
    assert {f"app.strategies.composite.{name}" for name in ("strategy", "rules", "params", "asking")} < set(modules)
    quants.write_text(quants.read_text() + "\nmore = 1\n")
    after = take()
    assert (after.code != before.code, after.platform) == (True, before.platform)
