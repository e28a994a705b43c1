"""Evaluate runs before they start: what a specification may say, which candle counts, how markets are cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.candles import EPOCH, Timeframe
from app.domain.runs import LATEST, RunSpec, Series, cut_slices
from app.domain.strategies import StrategyDefinition
from app.errors import ConfigurationError
from app.operations_evaluations import build_evaluation
from app.runs.memory import candles_remembered
from app.runs.planning import Plan, Planner, Source, Stored
from app.runs.specification import parse_spec
from app.settings import BatchSettings
from app.storage.runs import dump_spec
from app.strategies.registry import Registry

SPEC = {"kind": "evaluate", "strategies": ["cross"], "timeframe": "1h"}
NOW = datetime(2024, 3, 1, 12, 30, tzinfo=UTC)
BACKTEST = {"kind": "backtest", "from": "2024-01-01T00:00Z", "to": "2024-02-01T00:00Z"}
FRESH, STALE = Series("BTC-USD", 1, 0), Series("OLD-USD", 0, 0)


def plan(*series: Series, implementation: str = "ema_cross", **changes: Any) -> Plan:
    source = Source(StrategyDefinition(name="cross", implementation=implementation, category="trend"), 7, 3)
    stored = Stored([each.symbol for each in series], series)
    return Planner(Registry(), 512, 100).plan(parse_spec({**SPEC, **changes}), [source], stored)


def refusal(*series: Series, **changes: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        plan(*series, **changes)
    return str(refused.value)


def test_it_needs_no_range_and_comes_back_from_storage_as_it_was() -> None:
    spec = parse_spec({**SPEC, "selection": {"min_edge_percent": 3}, "max_age_candles": 0})
    assert spec.to_time == LATEST
    assert RunSpec.model_validate(dump_spec(spec)) == spec


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"from": "2024-01-01T00:00Z"}, "from: means nothing for a run of kind evaluate"),
        ({"trading": {"fee_percent": 1}}, "trading: means nothing for a run of kind evaluate"),
        ({"selection": {"min_edge": 3}}, "selection.min_edge: unknown key: did you mean 'min_edge_percent'?"),
        ({"selection": {"min_edge_percent": -1}}, "min_edge_percent"),
        ({"max_age_candles": -1}, "max_age_candles"),
        ({"symbols": ["BTC-USDD"]}, "no stored 1h series matches 'BTC-USDD': did you mean 'BTC-USD'?"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(FRESH, **changes)


def test_an_age_beyond_all_time_allows_any_candle() -> None:
    for age in (10**9, 10**30):
        evaluation = build_evaluation(BatchSettings(), parse_spec({**SPEC, "max_age_candles": age}), NOW)
        assert evaluation is not None and evaluation.since == EPOCH


def test_markets_that_are_all_stale_are_refused_and_a_few_are_told() -> None:
    assert "the latest candles of 1 series are older" in refusal(STALE)
    planned = plan(FRESH, STALE)
    assert [each.symbol for each in planned.series] == ["BTC-USD", "OLD-USD"]
    assert len(planned.units) == 2
    assert any("OLD-USD: rejected as stale" in warning for warning in planned.warnings)


def test_a_window_is_what_the_strategies_remember_or_what_live_has() -> None:
    strategy = Registry().create("bollinger_reversion", {})
    assert plan(FRESH, implementation="bollinger_reversion").window == candles_remembered(strategy, 512, Timeframe.H1)
    assert plan(FRESH, implementation="bollinger_reversion").window < 100
    assert plan(FRESH, method="windows").window == 512
    assert plan(FRESH).variants[0].category == "trend"


def test_a_candle_may_be_as_old_as_the_setting_or_the_run_says() -> None:
    batch = BatchSettings(max_age_candles=2)
    by_setting = build_evaluation(batch, parse_spec(SPEC), NOW)
    # at 12:30 the newest candle that can have closed opened at 11:00; two older ones are allowed
    assert by_setting is not None and by_setting.until == NOW
    assert by_setting.since == NOW - timedelta(hours=3)
    by_run = build_evaluation(batch, parse_spec({**SPEC, "max_age_candles": 0, "to": "2024-02-01T00:00Z"}), NOW)
    assert by_run is not None
    assert (by_run.since, by_run.until) == (datetime(2024, 1, 31, 23, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC))
    assert build_evaluation(batch, parse_spec({**SPEC, **BACKTEST}), NOW) is None


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 20))
def test_every_market_is_in_one_slice_in_order(markets: int, variants: int, size: int) -> None:
    symbols = [f"M{number}" for number in range(markets)]
    cut = list(cut_slices(symbols, variants, size))
    assert [symbol for each in cut for symbol in each.symbols] == symbols
    assert [each.number for each in cut] == list(range(len(cut)))
    assert all(symbols[each.first_market] == each.symbols[0] and len(each.symbols) <= size for each in cut)
    assert {each.variants for each in cut} == {tuple(range(variants))}
