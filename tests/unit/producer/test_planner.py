from collections.abc import Sequence
from typing import Any

from app.domain.costs import Sample
from app.domain.strategies import Limits, Priority, RegisteredStrategy, StrategyDefinition
from app.producer.planner import PlannedChunk, Planner
from app.producer.throttling import LONGEST_DELAY_S, Spacer
from app.settings import DispatchSettings

LEARNED = 100


def registered(number: int, **fields: object) -> RegisteredStrategy:
    definition = StrategyDefinition.model_validate({"name": f"s{number}", "implementation": "ema_cross", **fields})
    return RegisteredStrategy(id=number, revision=1, definition=definition)


def light(number: int, ms: float = 0.01, **changes: Any) -> Sample:
    return Sample(number, 1, LEARNED, ms, ms, ms, 0, 0)._replace(**changes)


def planned(
    strategies: Sequence[RegisteredStrategy], *samples: Sample, slots: int = 2, half_open: Sequence[int] = ()
) -> tuple[PlannedChunk, ...]:
    planner = Planner(DispatchSettings())
    planner.learn(samples, slots, 1.0, strategies)
    return planner.plan(strategies, half_open).chunks


def told(chunks: Sequence[PlannedChunk]) -> list[tuple[list[int], str]]:
    return [(chunk.strategies, chunk.reason.partition(":")[0]) for chunk in chunks]


def test_who_is_new_slow_failing_or_being_tried_travels_alone():
    strategies = [registered(number) for number in range(1, 8)]
    samples = [
        light(1),
        light(2, ms=6.0),
        light(3, failed=30),
        light(4, jobs=2),
        light(5),
        light(6),
        light(7, mean_ms=20.0),  # cheap as a rule, and now and then far from it
    ]
    assert told(planned(strategies, *samples, half_open=[5])) == [
        ([1, 6], "cheap and healthy"),
        ([2], "slow"),
        ([3], "failing"),
        ([4], "new"),
        ([5], "its breaker is half open"),
        ([7], "slow"),
    ]
    alone = [chunk.is_alone for chunk in planned(strategies, *samples, half_open=[5])]
    assert alone == [False, False, True, True, True, False], "slow ones may share a message with slow ones"


def test_nothing_is_known_at_first_and_everybody_travels_alone():
    strategies = [registered(number) for number in (1, 2)]
    assert told(planned(strategies)) == [([1], "new"), ([2], "new")]


def test_work_is_shared_out_among_the_slots():
    strategies = [registered(number) for number in range(1, 41)]
    samples = [light(number, ms=0.25) for number in range(1, 41)]
    assert [len(chunk.jobs) for chunk in planned(strategies, *samples, slots=4)] == [10, 10, 10, 10]
    assert [len(chunk.jobs) for chunk in planned(strategies, *samples, slots=1)] == [40]


def test_one_beyond_its_p95_is_throttled_waits_behind_the_others_and_says_why():
    strategies = [registered(1, priority=Priority.HIGH), registered(2, priority=Priority.HIGH)]
    chunks = planned(strategies, light(1), light(2, ms=300.0, p95_ms=400.0))
    assert told(chunks) == [([1], "nothing to share a chunk with"), ([2], "throttled")]
    assert [chunk.priority for chunk in chunks] == [Priority.HIGH, Priority.LOW]
    assert "P95 about" in chunks[1].reason and "limit 100 ms" in chunks[1].reason
    # a fifth of one slot's time (80 % x 100 / 512 ms) for jobs of about a third of a second, on two slots
    assert 1.0 < chunks[1].spacing_s < 1.3


def test_one_that_wants_more_than_its_share_is_throttled_until_it_wants_less():
    strategies = [registered(1), registered(2, limits=Limits(cpu_percent=10))]
    planner = Planner(DispatchSettings())
    planner.count([1, 2], 20_000)
    planner.learn([light(1, ms=1.0), light(2, ms=1.0)], 2, 10.0, strategies)
    assert {number: "% of all slots" in throttle.reason for number, throttle in planner.throttled.items()} == {2: True}
    for _ in range(30):
        planner.learn([], 2, 10.0, strategies)
    assert planner.throttled == {}


def test_plans_of_equal_chunks_for_equal_reasons_have_one_name_whatever_they_are_thought_to_cost():
    strategies = [registered(1), registered(2)]
    planner = Planner(DispatchSettings())
    planner.learn([light(1), light(2)], 2, 1.0, strategies)
    before, mark = planner.plan(strategies), planner.fingerprint(strategies)
    planner.learn([light(1, ms=0.05), light(2, ms=0.05)] * 10, 2, 1.0, strategies)
    assert planner.fingerprint(strategies) != mark
    assert planner.plan(strategies).digest == before.digest
    planner.learn([light(1, stopped=1)], 2, 1.0, strategies)
    assert planner.plan(strategies).digest != before.digest


def test_jobs_of_a_throttled_strategy_are_spaced_and_none_waits_too_long():
    spacer = Spacer()
    assert [spacer.delay_s(1, 2.0, 100.0) for _ in range(5)] == [0.0, 2.0, 4.0, LONGEST_DELAY_S, LONGEST_DELAY_S]
    assert spacer.delay_s(2, 2.0, 100.0) == 0.0
    assert spacer.delay_s(1, 2.0, 200.0) == 0.0
