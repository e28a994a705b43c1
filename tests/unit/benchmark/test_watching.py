import psutil
import pytest

from app.benchmark.soak import Sample, build_growth
from app.benchmark.watching import is_busy, share_busy


@pytest.mark.parametrize(
    ("before", "in_postgres", "after", "busy"),
    [
        (psutil.STATUS_SLEEPING, False, psutil.STATUS_SLEEPING, False),
        (psutil.STATUS_RUNNING, False, psutil.STATUS_SLEEPING, True),
        (psutil.STATUS_SLEEPING, False, psutil.STATUS_RUNNING, True),
        (psutil.STATUS_SLEEPING, True, psutil.STATUS_SLEEPING, True),
        (psutil.STATUS_DISK_SLEEP, False, psutil.STATUS_SLEEPING, True),
    ],
)
def test_a_slot_is_busy_on_a_core_or_in_postgres(before: str, in_postgres: bool, after: str, busy: bool):
    assert is_busy(before, in_postgres, after) is busy


def test_a_slot_may_idle_when_nothing_waits():
    samples = [(3, [True, False]), (1, [True, True]), (0, [False, False])]

    assert share_busy(samples) == 0.75


def test_where_nothing_ever_waited_there_is_no_share():
    assert share_busy([(0, [False, False])]) is None
    assert share_busy([]) is None


def samples_of(producer: list[float | None], slot: list[float]) -> list[Sample]:
    return [
        Sample(float(number), number * 100, {"slot-1": s} | ({} if p is None else {"producer": p}))
        for number, (p, s) in enumerate(zip(producer, slot, strict=True))
    ]


def test_growth_is_the_end_over_what_there_was_after_the_warm_up():
    slot = [10.0, 50.0, 50.0, 50.0, 50.0, 55.0, 55.0, 55.0]
    growth = build_growth(samples_of([20.0] * 8, slot), warm_after=100)

    assert growth == {"producer": 1.0, "slot-1": pytest.approx(1.1)}


def test_a_single_odd_sample_is_not_growth():
    assert build_growth(samples_of([20.0] * 8, [50.0] * 7 + [90.0]), warm_after=100)["slot-1"] == 1.0


def test_what_the_others_seem_to_take_once_the_producer_has_ended_does_not_count():
    producer = [9.0, 20.0, 20.0, 20.0, 22.0, 22.0, 22.0, None, None]
    growth = build_growth(samples_of(producer, [50.0] * 7 + [60.0] * 2), warm_after=100)

    assert growth == {"producer": pytest.approx(1.1), "slot-1": 1.0}


def test_without_two_samples_after_the_warm_up_there_is_no_growth():
    assert build_growth(samples_of([20.0, 20.0], [50.0, 50.0]), warm_after=100) == {}
