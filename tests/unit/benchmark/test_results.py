import pytest

from app.benchmark.results import (
    CELERY,
    FLEET,
    JOBS_PER_S,
    LIMIT,
    P50_MS,
    PLAIN,
    RATIOS,
    UTILISATION,
    Key,
    Results,
    build_ratios,
)


def results_of(values: dict[Key, list[float]]) -> Results:
    results = Results()
    for key, rounds in values.items():
        for value in rounds:
            results.add(*key, value)
    return results


def test_a_ratio_is_drawn_from_the_medians_of_the_rounds():
    results = results_of(
        {
            Key("light-50", FLEET, JOBS_PER_S): [30_000, 1, 28_000],
            Key("light-50", CELERY, JOBS_PER_S): [700, 900, 90_000],
            Key("light-50", LIMIT, JOBS_PER_S): [56_000],
        }
    )

    assert build_ratios(results) == {
        "throughput_vs_celery": pytest.approx(28_000 / 900),
        "throughput_vs_limit": pytest.approx(0.5),
    }


def test_latency_is_ours_over_theirs_and_wide_over_narrow():
    results = results_of(
        {
            Key("light-50", FLEET, P50_MS): [5.0],
            Key("light-50", CELERY, P50_MS): [100.0],
            Key("light-500", FLEET, P50_MS): [15.0],
        }
    )

    assert build_ratios(results) == {"latency_vs_celery": 0.05, "latency_growth_10x": 3.0}


def test_a_share_is_a_ratio_as_it_is():
    results = results_of({Key("burst-100", FLEET, UTILISATION): [0.9, 0.8, 0.95]})

    assert build_ratios(results) == {"burst_utilisation": 0.9}


def test_what_was_not_measured_has_no_ratio():
    assert build_ratios(Results()) == {}
    assert build_ratios(results_of({Key("light-50", FLEET, JOBS_PER_S): [1.0]})) == {}


def test_nothing_is_divided_by_zero():
    zero = {Key("light-50", FLEET, JOBS_PER_S): [1.0], Key("light-50", CELERY, JOBS_PER_S): [0.0]}

    assert build_ratios(results_of(zero)) == {}


def test_every_ratio_that_the_project_promises_is_drawn():
    promised = {
        "throughput_vs_celery",
        "throughput_vs_limit",
        "latency_vs_celery",
        "latency_growth_10x",
        "three_slots_vs_sequential",
        "mixed_light_p95",
        "heavy_vs_limit",
        "burst_memory_growth",
        "burst_utilisation",
        "switch_ms",
        "slot_mb",
        "events_cost",
        "runs_vs_plain",
        "runs_vs_signals",
        "live_p95_beside_run",
        "runs_by_window_vs_plain",
    }

    assert {*RATIOS, *PLAIN} == promised


def test_a_measurement_says_its_spread():
    (measurement,) = results_of({Key("light-50", FLEET, JOBS_PER_S): [3.0, 1.0, 2.0]})

    assert measurement.document() == {
        "workload": "light-50",
        "contender": FLEET,
        "measure": JOBS_PER_S,
        "median": 2.0,
        "min": 1.0,
        "max": 3.0,
        "values": [3.0, 1.0, 2.0],
    }
