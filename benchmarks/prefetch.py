"""Landed outcomes per second by messages held per slot: `python -m benchmarks.prefetch`.

The same light strategies as `benchmarks.chunking`, with chunks and without, one node of two slots, started anew for
every measurement. The settings are measured in turn, several rounds; what counts are ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack

from app.deployment import Deployment, throwaway
from app.processes import Children
from app.settings import load_settings
from benchmarks.chunking import await_worker, land, prepare

PREFETCH = (1, 2, 4)
#: Candles of one measurement.
CHUNKED_CANDLES, SINGLE_CANDLES = 2000, 60


def measure(rounds: int) -> dict[str, object]:
    rates: dict[str, dict[int, list[float]]] = {"chunked": defaultdict(list), "single": defaultdict(list)}
    with ExitStack() as stack:
        deployment = stack.enter_context(throwaway(load_settings()))
        prepare(deployment.settings)
        for number in range(rounds):
            for prefetch in PREFETCH:
                chunked, single = _rates(deployment, prefetch, seed=100 * number + prefetch)
                rates["chunked"][prefetch].append(chunked)
                rates["single"][prefetch].append(single)
                print(f"round {number + 1}, prefetch {prefetch}: chunked {chunked:,.0f}/s, single {single:,.0f}/s")
    medians = {way: {held: statistics.median(found[held]) for held in PREFETCH} for way, found in rates.items()}
    ratios = {way: {held: found[held] / found[1] for held in PREFETCH} for way, found in medians.items()}
    return {"outcomes_per_s": medians, "ratio_to_prefetch_1": ratios, "rounds": rounds}


def _rates(deployment: Deployment, prefetch: int, seed: int) -> tuple[float, float]:
    environment = {**deployment.environment, "CANDLEFLEET_WORKER__PREFETCH": str(prefetch)}
    with Children(deployment.settings.home / "logs", environment) as children:
        children.start("worker", "app.cli.main", "worker", "--concurrency", "2")
        await_worker(deployment.settings)
        land(deployment.settings, True, 200, 2 * seed + 1_000_000)  # warm
        chunked = land(deployment.settings, True, CHUNKED_CANDLES, 2 * seed)
        return chunked, land(deployment.settings, False, SINGLE_CANDLES, 2 * seed + 1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.rounds), indent=2))


if __name__ == "__main__":
    main()
