"""Landed outcomes per second by messages held per slot: `python -m benchmarks.prefetch`.

Light jobs of 50 strategies, with chunks and without, on one node of two slots for each setting, as `candlefleet bench`
measures them: warmed up, in turns, several rounds. What counts are ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event

from app.benchmark.fleet import FleetContender
from app.benchmark.ground import ground
from app.benchmark.plan import Plan
from app.benchmark.stage import Stage, in_turns
from app.benchmark.workloads import light
from app.settings import load_settings

PREFETCH = (1, 2, 4)
#: Candles of one measurement.
CANDLES = {"chunked": 600, "single": 30}
WORKLOAD = light(50)


def measure(rounds: int) -> dict[str, object]:
    rates: dict[str, list[float]] = {f"{way}-{held}": [] for way in CANDLES for held in PREFETCH}
    with ExitStack() as opened:
        prepared = opened.enter_context(ground(load_settings(), [WORKLOAD], Event()))
        stage = opened.enter_context(Stage(prepared, Plan(), print))
        contenders = [contender for held in PREFETCH for contender in _build(opened, stage, held)]
        for number in range(rounds):
            for contender in in_turns(contenders, number):
                way = contender.name.partition("-")[0]
                run = contender.run(stage.take(contender, WORKLOAD, CANDLES[way]))
                rates[contender.name].append(run.jobs_per_s)
            print(f"round {number + 1}: " + ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items()))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratios = {way: {held: medians[f"{way}-{held}"] / medians[f"{way}-1"] for held in PREFETCH} for way in CANDLES}
    return {"outcomes_per_s": medians, "ratio_to_prefetch_1": ratios, "rounds": rounds}


def _build(opened: ExitStack, stage: Stage, held: int) -> list[FleetContender]:
    environment = {"CANDLEFLEET_WORKER__PREFETCH": str(held)}
    node = opened.enter_context(stage.ground.node(f"prefetch{held}", environment=environment))
    chunked = opened.enter_context(stage.ground.fleet(node, f"chunked-{held}"))
    single = opened.enter_context(stage.ground.fleet(node, f"single-{held}", chunking=False))
    stage.teach(chunked, [WORKLOAD])
    for contender in (chunked, single):
        stage.warm_up(contender, WORKLOAD)
    return [chunked, single]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.rounds), indent=2))


if __name__ == "__main__":
    main()
