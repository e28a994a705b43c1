"""Planning: what a run is made of, and everything that is refused before anything is queued."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.runs import RunLimits, Series, Unit
from app.domain.strategies import StrategyDefinition, Trading
from app.errors import ConfigurationError, SpecificationError
from app.operations_runs import with_defaults
from app.runs.planning import Plan, Planner, Source, Stored
from app.runs.specification import parse_spec
from app.settings import BatchSettings
from app.strategies.registry import Registry

SPEC = {"strategies": ["cross"], "timeframe": "1h", "from": "2024-01-01T00:00Z", "to": "2024-02-01T00:00Z"}
STORED = Stored(["BTC-USD", "ETH-USD"], [Series("BTC-USD", 700, 0), Series("ETH-USD", 744, 0)])


def source(name: str = "cross", implementation: str = "ema_cross", **changes: Any) -> Source:
    return Source(StrategyDefinition(name=name, implementation=implementation, **changes), 7, 3)


def plan(*sources: Source, stored: Stored = STORED, most_units: int = 100, window: int = 512, **changes: Any) -> Plan:
    spec = parse_spec({**SPEC, **changes})
    return Planner(Registry(), window, most_units).plan(spec, sources or [source()], stored)


def refusal(*sources: Source, **changes: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        plan(*sources, **changes)
    return str(refused.value)


def test_units_are_variants_times_symbols_and_those_of_a_symbol_follow_each_other() -> None:
    planned = plan(source(), source("bands", "bollinger_reversion"), grid={"cross": {"fast": [5, 8]}})
    assert [(each.strategy, each.params.get("fast")) for each in planned.variants] == [
        ("cross", 5),
        ("cross", 8),
        ("bands", None),
    ]
    btc = [Unit(number, number, "BTC-USD", 700) for number in range(3)]
    assert planned.units == btc + [Unit(3 + number, number, "ETH-USD", 744) for number in range(3)]
    assert planned.candles == 3 * 1444


@given(
    fast=st.lists(st.integers(2, 40), min_size=1, max_size=5, unique=True),
    slow=st.lists(st.integers(3, 60), min_size=1, max_size=5, unique=True),
)
def test_a_grid_is_its_possible_combinations_each_once(fast: list[int], slow: list[int]) -> None:
    possible = [(a, b) for a in fast for b in slow if a < b]
    if not possible:
        assert "no combination of params is possible" in refusal(grid={"fast": fast, "slow": slow})
        return
    planned = plan(grid={"fast": fast, "slow": slow})
    assert [(each.params["fast"], each.params["slow"]) for each in planned.variants] == possible
    left_out = len(fast) * len(slow) - len(possible)
    assert any("left out" in warning for warning in planned.warnings) == (left_out > 0)
    assert [unit.number for unit in planned.units] == list(range(2 * len(possible)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"to": "2024-01-01T00:00Z"}, "from must be before to"),
        ({"timeframe": "7h"}, "timeframe"),
        ({"strategies": []}, "strategies"),
        ({"symbls": ["*"]}, "symbls: unknown key: did you mean 'symbols'?"),
        ({"limits": {"concurency": 2}}, "limits.concurency: unknown key: did you mean 'concurrency'?"),
        ({"limits": {"concurrency": 0}}, "limits.concurrency"),
        ({"trading": {"fee_percent": -1}}, "fee_percent"),
        ({"trading": {"enabled": False}}, "trading.enabled: a run always trades"),
        ({"from": "last year"}, "from: Input should be a valid datetime"),
        ({"selection": {"min_edge_percent": 3}}, "selection: means nothing for a run of kind backtest"),
        ({"kind": "evaluate"}, "from: means nothing for a run of kind evaluate"),
        ({"symbols": ["BTC-USDD"]}, "no stored 1h series matches 'BTC-USDD': did you mean 'BTC-USD'?"),
        ({"grid": {"fast": []}}, "grid.fast: expected values to try, found an empty list"),
        ({"grid": {"fsat": [5]}}, "grid.fsat: cross has no such param: did you mean 'fast'?"),
        ({"grid": {"cros": {"fast": [5]}}}, "grid.cros: not a strategy of this run: did you mean 'cross'?"),
        ({"grid": {"fast": [500, 600]}}, "no combination of params is possible"),
        (
            {"grid": {"fast": list(range(2, 60))}},
            "at most 100 units, found 116 (58 combinations of strategy and",
        ),
        ({"grid": {"fast": list(range(2, 60))}}, "raise CANDLEFLEET_RUNS__MOST_UNITS"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(**changes)


def test_no_candles_in_the_range_is_refused_and_some_series_without_are_told() -> None:
    none = [Series("BTC-USD", 0, 0), Series("ETH-USD", 0, 0)]
    empty = refusal(stored=Stored(STORED.symbols, none))
    assert "from, to: no candle of BTC-USD, ETH-USD in 2024-01-01 00:00 to 2024-02-01 00:00 UTC" in empty
    planned = plan(stored=Stored(STORED.symbols, [none[0], STORED.series[1]]))
    assert planned.warnings == ["no candle in the range, left out: BTC-USD"]
    assert {unit.symbol for unit in planned.units} == {"ETH-USD"}


def test_everything_that_is_wrong_is_said_at_once() -> None:
    said = refusal(symbols=["XXX"], grid={"fast": []})
    assert "symbols:" in said and "grid.fast:" in said


def test_an_unknown_param_is_said_with_an_unknown_symbol_and_each_of_several() -> None:
    said = refusal(symbols=["XXX"], grid={"fsat": [5], "solw": [6]})
    assert all(f"\n  - {field}: " in said for field in ("symbols", "grid.fsat", "grid.solw"))


def test_what_was_found_before_is_said_with_it() -> None:
    spec = parse_spec({**SPEC, "symbols": ["XXX"]})
    with pytest.raises(SpecificationError) as refused:
        Planner(Registry(), 512, 100).plan(spec, [], STORED, ["strategies: no strategy 'cros'"])
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["strategies", "symbols"]


def test_a_symbol_in_another_case_is_meant_and_the_list_says_how_many_more_there_are() -> None:
    symbols = [f"S{number:03d}-USD" for number in range(30)]
    stored = Stored(["BTC-USD", *symbols], STORED.series)
    said = refusal(stored=stored, symbols=["btc-usd"])
    assert "did you mean 'BTC-USD'? allowed: BTC-USD, S000-USD" in said
    assert said.endswith("S018-USD and 11 more")


def test_what_is_there_twice_is_planned_once_and_said() -> None:
    planned = plan(grid={"fast": [12, 12, 12, 8], "slow": [26]})
    assert [each.params["fast"] for each in planned.variants] == [12, 8]
    assert planned.warnings == ["grid: 2 combinations are the same as another of cross, and not planned twice"]
    planned = plan(source(), source())
    assert (len(planned.variants), len(planned.units)) == (1, 2)
    assert planned.warnings == ["strategies: 'cross' is there more than once and planned once"]


def test_a_strategy_of_a_file_is_said_to_be_unverified() -> None:
    definition = source().definition
    (warning,) = plan(Source(definition, file="mine.toml")).warnings
    assert "candlefleet strategies verify mine.toml" in warning


def test_gaps_are_said_with_their_number() -> None:
    gaps = [Series("BTC-USD", 700, 44), Series("ETH-USD", 740, 4)]
    (warning,) = plan(stored=Stored(STORED.symbols, gaps)).warnings
    assert "48 candles are missing inside the ranges of 2 series, most of BTC-USD (44)" in warning


def test_a_strategy_that_remembers_more_than_a_window_is_told() -> None:
    assert plan(grid={"slow": [26]}).warnings == []
    assert "remember more than the window of 512" in plan(grid={"slow": [200]}).warnings[0]
    assert plan(grid={"slow": [200]}, method="windows").warnings == []
    assert "needs 3224 candles of warm-up, the window is 512" in refusal(grid={"slow": [1400]})


def test_a_runs_trading_lies_over_that_of_the_strategy() -> None:
    own = Trading(size_percent=5.0, fee_percent=0.3, enabled=False)
    (variant,) = plan(source(trading=own), trading={"fee_percent": 0.02, "capital": 500.0}).variants
    assert variant.trading == Trading(size_percent=5.0, fee_percent=0.02, capital=500.0, enabled=True)


def test_only_a_variant_with_the_params_of_the_catalogue_has_its_revision() -> None:
    variants = plan(source(params={"fast": 8}), grid={"fast": [8, 9], "slow": [26]}).variants
    assert [(each.params["fast"], each.strategy_id, each.revision) for each in variants] == [(8, 7, 3), (9, 7, None)]


@pytest.mark.parametrize("moment", ["2024-01-01", "2024-01-01T00:00", "2024-01-01T02:00+02:00", date(2024, 1, 1)])
def test_moments_are_utc_where_no_zone_is_stated(moment: object) -> None:
    assert parse_spec({**SPEC, "from": moment}).from_time == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("field", "moment"), [("to", "9999-12-31T23:59:59-23:00"), ("from", "0001-01-01T00:00+05:00")])
def test_a_moment_beyond_all_years_is_refused_with_its_field(field: str, moment: str) -> None:
    said = refusal(**{field: moment})
    assert f"{field}: expected a moment in the years 1 to 9999 of UTC, found" in said


def test_limits_that_a_specification_leaves_out_are_those_of_the_settings() -> None:
    batch = BatchSettings(timeout_ms=7, retries=1, max_concurrency=3, batch_size=9)
    spec = with_defaults(parse_spec({**SPEC, "limits": {"retries": 4, "memory_mb": 64}}), batch)
    assert spec.limits == RunLimits(timeout_ms=7, retries=4, concurrency=3, batch_size=9, memory_mb=64)
    assert with_defaults(spec, BatchSettings()) == spec
