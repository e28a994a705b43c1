from pathlib import Path

import pytest

from app.benchmark.floors import Floor, judge, load_floors
from app.benchmark.results import PLAIN, RATIOS
from app.errors import ConfigurationError

LEAST = Floor("throughput_vs_celery", bound=15.0, target=30.0, is_least=True)
MOST = Floor("latency_growth_10x", bound=6.0, target=4.0, is_least=False)


@pytest.mark.parametrize(("value", "is_met"), [(14.9, False), (15.0, True), (40.0, True)])
def test_a_ratio_that_should_be_large_fails_below_its_floor(value: float, is_met: bool):
    assert LEAST.is_met(value) is is_met


@pytest.mark.parametrize(("value", "is_met"), [(6.1, False), (6.0, True), (2.0, True)])
def test_a_ratio_that_should_be_small_fails_above_its_floor(value: float, is_met: bool):
    assert MOST.is_met(value) is is_met


def test_a_target_has_the_direction_of_its_floor():
    assert LEAST.reaches_target(30.0) and not LEAST.reaches_target(29.0)
    assert MOST.reaches_target(4.0) and not MOST.reaches_target(5.0)


def test_only_what_was_measured_is_judged():
    verdicts = judge({"latency_growth_10x": 7.0, "without_floor": 1.0}, {f.name: f for f in (LEAST, MOST)})

    (verdict,) = verdicts
    assert not verdict.passed
    assert verdict.document() == {
        "ratio": "latency_growth_10x",
        "value": 7.0,
        "at_most": 6.0,
        "target": 4.0,
        "passed": False,
        "reaches_target": False,
    }


def test_the_repository_has_a_floor_for_every_ratio_no_stricter_than_its_target():
    floors = load_floors()

    assert set(floors) == {*RATIOS, *PLAIN, "soak_memory_growth"}
    for floor in floors.values():
        assert floor.is_met(floor.target), floor.name


@pytest.mark.parametrize(
    "text",
    [
        "[a]\nat_least = 1\n",
        "[a]\nat_least = 1\nat_most = 2\ntarget = 3\n",
        "[a]\nat_most = 'x'\ntarget = 3\n",
        "a = 1\n",
        "[a",
    ],
)
def test_a_floor_that_does_not_say_one_bound_and_a_target_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "floors.toml"
    path.write_text(text)

    with pytest.raises(ConfigurationError):
        load_floors(path)


def test_floors_that_are_not_there_are_an_error_and_not_a_pass(tmp_path: Path):
    with pytest.raises(ConfigurationError):
        load_floors(tmp_path / "none.toml")
