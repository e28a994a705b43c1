import pytest

from app.benchmark.limit import place_of
from app.benchmark.parts import MEASURE
from app.benchmark.plan import PARTS, Plan, build_plan
from app.benchmark.stage import in_turns


def test_every_part_can_be_measured_and_all_are_by_default():
    assert set(MEASURE) == set(PARTS)
    assert build_plan(quick=False, rounds=None, parts=[]) == Plan()


def test_only_the_parts_asked_for_are_measured_in_their_order():
    assert build_plan(quick=False, rounds=None, parts=["paced", "light"]).parts == ("light", "paced")


def test_rounds_are_those_asked_for():
    plan = build_plan(quick=True, rounds=2, parts=[])

    assert plan.rounds == 2
    assert plan.burst_rounds <= 2


@pytest.mark.parametrize("quick", [False, True])
def test_the_catalogue_holds_every_workload_that_is_measured_once(quick: bool):
    plan = build_plan(quick=quick, rounds=None, parts=[])
    names = [workload.name for workload in plan.workloads()]

    assert len(names) == len(set(names))
    assert {"light-50", "light-500", "mixed-50", "heavy-50", "burst-100", "slots-3"} <= set(names)


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("light", {"light-3", "light-50", "light-500"}),
        ("mixed", {"light-3", "light-50", "light-500", "mixed-50"}),
        ("heavy", {"heavy-3", "heavy-50"}),
        ("burst", {"burst-100"}),
        ("slots", set()),
    ],
)
def test_a_producer_is_taught_the_workloads_it_will_be_measured_with(part: str, names: set[str]):
    plan = build_plan(quick=False, rounds=None, parts=[part])

    assert {workload.name for workload in plan.measured()} == names


def test_contenders_follow_each_other_forwards_and_backwards_in_turns():
    assert list(in_turns([1, 2, 3], 0)) == [1, 2, 3]
    assert list(in_turns([1, 2, 3], 1)) == [3, 2, 1]


def test_every_second_symbol_does_not_always_go_to_the_same_process():
    places = [place_of(number, 2) for number in range(8)]

    assert places == [0, 1, 1, 0, 0, 1, 1, 0]
    assert sorted(places[1::2]) == [0, 0, 1, 1]
