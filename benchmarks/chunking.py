"""Landed outcomes per second with chunks against one message a job: `python -m benchmarks.chunking`.

Real servers, real workers with two slots, 50 light strategies (EMA crosses), durable rows. Both ways are
measured in turn, several rounds, on one deployment; what counts is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from threading import Event

import psutil

from app.broker import Publisher, create_celery
from app.deployment import throwaway
from app.domain.candles import Timeframe
from app.domain.strategies import StrategyDefinition
from app.feeds.generated import GeneratedFeed
from app.operations import Operations
from app.processes import Children
from app.producer.build import build_producer
from app.settings import Settings, load_settings
from app.storage import listings
from app.storage.engine import build_engine
from app.storage.migrate import upgrade
from app.storage.strategies import save_definition

STRATEGIES = 50
#: Candles of one measurement: about the same seconds for both ways.
CHUNKED_CANDLES, SINGLE_CANDLES = 1200, 100
START = datetime(2024, 1, 1, tzinfo=UTC)
LOOK_EVERY_S = 0.02


def measure(rounds: int) -> dict[str, object]:
    with ExitStack() as stack:
        deployment = stack.enter_context(throwaway(load_settings()))
        prepare(deployment.settings)
        children = stack.enter_context(Children(deployment.settings.home / "logs", deployment.environment))
        children.start("worker", "app.cli.main", "worker", "--concurrency", "2")
        await_worker(deployment.settings)
        rates: dict[str, list[float]] = {"chunked": [], "single": []}
        for number in range(rounds):
            rates["chunked"].append(land(deployment.settings, True, CHUNKED_CANDLES, 2 * number))
            rates["single"].append(land(deployment.settings, False, SINGLE_CANDLES, 2 * number + 1))
            print(f"round {number + 1}: " + ", ".join(f"{way} {found[-1]:,.0f}/s" for way, found in rates.items()))
        slots = _slot_memory()
    medians = {way: statistics.median(found) for way, found in rates.items()}
    return {
        "outcomes_per_s": medians,
        "ratio": medians["chunked"] / medians["single"],
        "slot_memory_mb": slots,
        "rounds": rounds,
    }


def prepare(settings: Settings) -> None:
    engine = build_engine(settings.database_dsn, name="bench")
    upgrade(engine)
    with engine.begin() as connection:
        for number in range(STRATEGIES):
            params = {"fast": 5 + number % 20, "slow": 40 + number % 20}
            definition = StrategyDefinition(name=f"light-{number}", implementation="ema_cross", params=params)
            save_definition(connection, definition)
    engine.dispose()


def await_worker(settings: Settings) -> None:
    operations = Operations(settings)
    while not operations.status()["active_workers"]:
        time.sleep(LOOK_EVERY_S)
    operations.close()


def land(settings: Settings, chunking: bool, candles: int, seed: int) -> float:
    dispatch = settings.dispatch.model_copy(update={"chunking": chunking})
    settings = settings.model_copy(update={"dispatch": dispatch})
    engine = build_engine(settings.database_dsn, name="bench")
    publisher = Publisher(create_celery(settings), settings.dispatch.room)
    feed = GeneratedFeed([f"BENCH{seed}-USD"], Timeframe.H1, candles, seed, START)
    producer = build_producer(settings, engine, publisher, feed)
    started = time.perf_counter()
    report = producer.run(Event())
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while listings.count_open(connection)[1]:
            time.sleep(LOOK_EVERY_S)
    elapsed_s = time.perf_counter() - started
    publisher.close()
    engine.dispose()
    return report.jobs / elapsed_s


def _slot_memory() -> list[float]:
    """Return the memory of each slot in MB, pages shared with others counted in proportion (PSS)."""
    found = []
    for worker in psutil.Process().children():
        if "celery" in " ".join(worker.cmdline()):
            found += [slot.memory_full_info().pss / 1e6 for slot in worker.children()]
    return [round(megabytes, 1) for megabytes in found]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.rounds), indent=2))


if __name__ == "__main__":
    main()
