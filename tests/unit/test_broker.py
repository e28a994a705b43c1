"""Fairness among the queues, and an application that is complete before anything connects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json
from pydantic import SecretStr

from app.broker import BATCH_QUEUE, CONTROL_QUEUE, QUEUES, WeightedCycle, create_celery
from app.errors import ConfigurationError
from app.settings import BrokerSettings, Settings, WorkerSettings

WEIGHTS = {"high": 8, "normal": 3, "low": 1}

#: In order of urgency, as the settings hand them over.
weights_of_three = st.tuples(*[st.integers(1, 20)] * 3).map(lambda turns: dict(zip(QUEUES, turns, strict=True)))
#: What waits in each queue.
waiting_in_three = st.fixed_dictionaries({queue: st.integers(0, 60) for queue in QUEUES})


def serve(cycle: WeightedCycle, waiting: dict[str, int], refill: Callable[[str], bool] = lambda _: False) -> list[str]:
    """Consume as kombu does: ask for the order, pop from the first queue that has something, tell which it was."""
    served = []
    left = dict(waiting)
    while queue := next((name for name in cycle.consume(len(QUEUES)) if left.get(name)), None):
        cycle.rotate(queue)
        served.append(queue)
        left[queue] -= not refill(queue)
        if len(served) > 2000:
            break
    return served


@given(weights_of_three, waiting_in_three)
def test_everything_is_served_whatever_waits(weights: dict[str, int], waiting: dict[str, int]) -> None:
    assert Counter(serve(WeightedCycle(weights, QUEUES), waiting)) == Counter(waiting)


@given(weights_of_three, waiting_in_three, st.integers(1, 3))
def test_every_queue_is_asked_exactly_once_before_each_pop(
    weights: dict[str, int], waiting: dict[str, int], count: int
) -> None:
    cycle = WeightedCycle(weights, QUEUES)
    for queue in serve(WeightedCycle(weights, QUEUES), waiting):
        assert sorted(cycle.consume(3)) == sorted(QUEUES)
        assert cycle.consume(count) == cycle.consume(3)[:count]
        assert cycle.rotate(queue) == queue


@given(weights_of_three, st.integers(1, 20))
def test_full_queues_share_by_weight_in_every_round(weights: dict[str, int], rounds: int) -> None:
    cycle = WeightedCycle(weights, QUEUES)
    length = sum(weights.values())
    for _ in range(rounds):
        served = [cycle.rotate(cycle.consume(3)[0]) for _ in range(length)]
        assert Counter(served) == weights
        assert served[: weights["high"]] == ["high"] * weights["high"]  # urgent first within a round


@given(weights_of_three, st.sampled_from(QUEUES), st.integers(1, 30))
def test_flood_of_one_queue_starves_no_other(weights: dict[str, int], flooded: str, count: int) -> None:
    waiting = {queue: 1000 if queue == flooded else count for queue in QUEUES}
    served = serve(WeightedCycle(weights, QUEUES), waiting, refill=lambda queue: queue == flooded)
    for queue in QUEUES:
        positions = [place for place, name in enumerate(served) if name == queue]
        assert len(positions) >= count
        # never longer without a turn than one whole round of the others
        gaps = [after - before for before, after in pairwise(positions[:count])]
        assert max(gaps, default=0) <= 2 * sum(weights.values())


@given(weights_of_three, st.sampled_from(QUEUES), st.integers(1, 100))
def test_queue_alone_gets_everything(weights: dict[str, int], queue: str, count: int) -> None:
    assert serve(WeightedCycle(weights, QUEUES), {queue: count}) == [queue] * count


@given(weights_of_three, waiting_in_three, st.integers(1, 20))
def test_queue_of_weight_zero_is_served_when_nothing_else_waits(
    weights: dict[str, int], waiting: dict[str, int], batch: int
) -> None:
    cycle = WeightedCycle({**weights, BATCH_QUEUE: 0}, [*QUEUES, BATCH_QUEUE])
    left, served = {**waiting, BATCH_QUEUE: batch}, []
    while queue := next((name for name in cycle.consume(4) if left[name]), None):
        served.append(cycle.rotate(queue))
        left[queue] -= 1
        assert queue != BATCH_QUEUE or not any(left[live] for live in QUEUES)
    assert Counter(served) == +Counter({**waiting, BATCH_QUEUE: batch})


def test_node_that_consumes_some_queues_only_asks_those() -> None:
    cycle = WeightedCycle(WEIGHTS)
    assert cycle.consume(3) == []
    cycle.update(["low", "high"])
    assert cycle.consume(3) == ["high", "low"]
    assert cycle.rotate("normal") == "normal"  # a late answer of a queue that was left
    cycle.update(["extra", "low"])
    assert cycle.consume(3) == ["low", "extra"]  # one without a weight comes last


def build_settings(**changes: object) -> Settings:
    known = {"broker_url": SecretStr("redis://127.0.0.1:9/0"), "database_url": SecretStr("postgresql://h/n")}
    return Settings.model_validate({**known, **changes})


def test_application_follows_the_settings_without_connecting() -> None:
    broker = BrokerSettings(visibility_timeout_s=1234, key_prefix="own:", queue_weights=(5, 2, 1))
    app = create_celery(build_settings(broker=broker, worker=WorkerSettings(slots=3, prefetch=4, shutdown_s=7.0)))
    options = app.conf.broker_transport_options
    assert (options["visibility_timeout"], options["global_keyprefix"]) == (1234, "own:")
    cycle = options["queue_order_strategy"]()
    cycle.update(QUEUES)
    assert [cycle.rotate(cycle.consume(3)[0]) for _ in range(8)] == ["high"] * 5 + ["normal"] * 2 + ["low"]
    assert (app.conf.worker_concurrency, app.conf.worker_prefetch_multiplier) == (3, 4)
    assert (app.conf.task_acks_late, app.conf.task_ignore_result) == (True, True)
    assert app.conf.result_backend is None
    assert app.conf.accept_content == ["json"]
    assert [queue.name for queue in app.conf.task_queues] == [CONTROL_QUEUE, *QUEUES, BATCH_QUEUE]


def test_transport_options_can_be_told_to_whoever_asks_a_node() -> None:
    # `inspect stats`, and with it Flower's page of a worker, sends them as JSON
    options = create_celery(build_settings()).conf.broker_transport_options
    assert json.loads(json.dumps(options))["visibility_timeout"] == 900


def test_application_without_a_broker_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="CANDLEFLEET_BROKER_URL"):
        create_celery(build_settings(broker_url=None))
