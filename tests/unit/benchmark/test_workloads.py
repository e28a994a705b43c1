from collections import Counter

import pytest

from app.benchmark.market import TIMEFRAME
from app.benchmark.workloads import MODULE, Workload, burst, heavy, light, mixed, three_pauses
from app.strategies.registry import Registry

EVERY = [light(3), light(50), light(500), mixed(50), mixed(500), heavy(3), heavy(50), burst(500), three_pauses()]


def answered(workload: Workload, symbols: list[str]) -> Counter[str]:
    """Count the jobs of one close by what they are."""
    jobs: Counter[str] = Counter()
    for definition in workload.definitions():
        kind = "pausing" if "pause_ms" in definition.params else "light"
        jobs.update(kind for symbol in symbols if definition.subscription.matches(symbol, TIMEFRAME))
    return jobs


@pytest.mark.parametrize("workload", EVERY, ids=lambda workload: workload.name)
def test_every_candle_is_answered_by_as_many_strategies_as_the_workload_is_wide(workload: Workload):
    for symbol in workload.symbols_of("celery", most=4):
        assert answered(workload, [symbol]).total() == workload.width


@pytest.mark.parametrize("workload", [mixed(50), mixed(500)], ids=lambda workload: workload.name)
@pytest.mark.parametrize("most", [4, 64])
def test_one_job_in_a_hundred_of_a_mixed_load_pauses_however_many_symbols_a_contender_has(
    workload: Workload, most: int
):
    jobs = answered(workload, workload.symbols_of("candlefleet", most))

    assert jobs["pausing"] * 100 == jobs.total()


def test_light_load_never_pauses_and_heavy_load_always():
    assert answered(light(50), light(50).symbols_of("limit", 4)) == Counter(light=200)
    assert answered(heavy(50), heavy(50).symbols_of("limit", 4)) == Counter(pausing=200)


def test_contenders_and_workloads_do_not_share_symbols():
    names = [s for w in EVERY for contender in ("celery", "limit") for s in w.symbols_of(contender, 500)]

    assert len(names) == len(set(names))


def test_a_workload_asks_no_symbol_of_another_one():
    others = [symbol for other in EVERY if other.name != "light-50" for symbol in other.symbols_of("limit", 4)]

    assert answered(light(50), others).total() == 0


def test_a_burst_is_fifty_thousand_jobs():
    assert burst(500).width * len(burst(500).symbols_of("candlefleet", 500)) == 50_000


@pytest.mark.parametrize("workload", EVERY, ids=lambda workload: workload.name)
def test_every_strategy_can_be_created_by_a_worker_that_allows_the_module(workload: Workload):
    registry = Registry((MODULE,))
    for definition in workload.definitions():
        registry.create(definition.implementation, definition.params)
