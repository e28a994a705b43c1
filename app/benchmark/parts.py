"""The parts of a benchmark: each measures its contenders in turns, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from app.benchmark.batch import measure_runs
from app.benchmark.beside import measure_beside
from app.benchmark.celery_baseline import CeleryContender
from app.benchmark.fleet import FleetContender
from app.benchmark.ground import FEW_SYMBOLS
from app.benchmark.limit import Evaluator
from app.benchmark.measuring import Contender
from app.benchmark.results import (
    END_MB,
    FLEET,
    JOBS_PER_S,
    LIGHT_P95_MS,
    P50_MS,
    P95_MS,
    QUIET,
    SEQUENTIAL,
    START_MB,
    UTILISATION,
)
from app.benchmark.stage import Stage, in_turns
from app.benchmark.switching import measure_switching
from app.benchmark.tables import connect
from app.benchmark.watching import Utilisation, node_memory_mb, share_busy
from app.benchmark.workloads import Workload, burst, heavy, light, mixed, three_pauses

#: Candles a second of the steady load, 50 jobs each: a tenth of two slots' time goes into pauses when 1 % sleep 20 ms.
STEADY_CANDLES_PER_S = 20.0
#: Jobs of one latency measurement of a contender that takes milliseconds for each.
FEW_JOBS = 500
#: Strategies of a candle up to which one message a job is measured: beyond, a job costs the same and takes minutes.
WIDEST_UNCHUNKED = 50
#: Bursts until nearly every slot has had nearly every symbol: what it keeps of each is no leak.
BURSTS_BEFORE = 4
#: Slots of the node on which three jobs run at once.
THREE = 3


def measure_light(stage: Stage) -> None:
    """Throughput of light jobs."""
    for width in stage.plan.light_widths:
        _measure_throughput(stage, light(width), _all(stage, light(width)), stage.plan.seconds)


def measure_mixed(stage: Stage) -> None:
    """Throughput with one pausing job in a hundred, and what the light jobs suffer from it under a steady load."""
    _measure_throughput(stage, mixed(50), _all(stage, mixed(50)), stage.plan.seconds)
    stage.warm_up(stage.fleet, light(50))
    pausing = stage.ground.roster.pausing()
    for _ in range(stage.plan.rounds):
        for workload in (light(50), mixed(50)):
            closes = stage.take(stage.fleet, workload, round(STEADY_CANDLES_PER_S * stage.plan.steady_seconds))
            p95 = stage.fleet.run_steady(closes, STEADY_CANDLES_PER_S, pausing)
            stage.results.add(workload.name, FLEET, LIGHT_P95_MS, p95)
    _tell(stage, light(50), LIGHT_P95_MS)
    _tell(stage, mixed(50), LIGHT_P95_MS)


def measure_heavy(stage: Stage) -> None:
    """Throughput of jobs that sleep 10 ms."""
    for width in stage.plan.heavy_widths:
        _measure_throughput(stage, heavy(width), _all(stage, heavy(width)), stage.plan.heavy_seconds)


def measure_burst(stage: Stage) -> None:
    """Many symbols that close at once: throughput, the node's memory, and its slots while work waits."""
    workload = burst(stage.plan.burst_symbols)
    contenders: list[Contender] = [stage.fleet, stage.limit]
    for contender in contenders:
        for _ in range(BURSTS_BEFORE):
            contender.run(stage.take(contender, workload, workload.symbols))
    stage.results.add(workload.name, FLEET, START_MB, node_memory_mb(stage.node))
    for number in range(stage.plan.burst_rounds):
        for contender in in_turns(contenders, number):
            closes = stage.take(contender, workload, workload.symbols)
            with Utilisation(stage.node) as watched:
                run = contender.run(closes)
            stage.results.add(workload.name, contender.name, JOBS_PER_S, run.jobs_per_s)
            share = share_busy(watched.samples) if contender is stage.fleet else None
            if share is not None:
                stage.results.add(workload.name, FLEET, UTILISATION, share)
    stage.results.add(workload.name, FLEET, END_MB, node_memory_mb(stage.node))
    for measure in (JOBS_PER_S, UTILISATION, START_MB, END_MB):
        _tell(stage, workload, measure)


def measure_paced(stage: Stage) -> None:
    """Time of one candle from its dispatch to its decision, nothing else going on."""
    for width in stage.plan.light_widths:
        workload, few = light(width), max(3, min(stage.plan.paced_candles, FEW_JOBS // width))
        counts: dict[FleetContender | CeleryContender, int] = {stage.fleet: stage.plan.paced_candles}
        if width <= stage.plan.widest_celery:
            counts[stage.celery] = few
        if width <= WIDEST_UNCHUNKED:
            counts[stage.unchunked] = few
        for contender in counts:
            stage.warm_up(contender, workload)
        for number in range(stage.plan.rounds):
            for contender in in_turns(list(counts), number):
                run = contender.run_paced(stage.take(contender, workload, counts[contender]))
                _add_latency(stage, workload, contender.name, run.latencies_ms)
        _tell(stage, workload, P50_MS)


def measure_slots(stage: Stage) -> None:
    """Three pausing jobs of one candle on three slots, against one after another in a plain process."""
    workload, settings = three_pauses(), stage.ground.baselines
    with (
        stage.ground.node("three", slots=THREE) as node,
        stage.ground.fleet(node, "three") as fleet,
        connect(settings.database_dsn, "bench sequential") as connection,
    ):
        evaluator = Evaluator(connection, settings.worker.window, stage.ground.roster)
        stage.teach(fleet, [workload])
        market = stage.market(fleet, workload)
        fleet.run(market.take(stage.plan.paced_candles))
        for _ in range(stage.plan.rounds):
            run = fleet.run_paced(market.take(stage.plan.paced_candles))
            _add_latency(stage, workload, FLEET, run.latencies_ms)
            took = evaluator.time_each(market.take(stage.plan.paced_candles))
            _add_latency(stage, workload, SEQUENTIAL, took)
    _tell(stage, workload, P50_MS)


def measure_events(stage: Stage) -> None:
    """Throughput with the events that Flower shows, against a node that sends none."""
    with (
        stage.ground.node(QUIET, environment={"CANDLEFLEET_METRICS": "false"}) as node,
        stage.ground.fleet(node, QUIET) as quiet,
    ):
        stage.teach(quiet, [light(50)])
        _measure_throughput(stage, light(50), [stage.fleet, quiet], stage.plan.seconds, named="events-50")


#: What each part measures.
MEASURE: Mapping[str, Callable[[Stage], None]] = {
    "light": measure_light,
    "mixed": measure_mixed,
    "heavy": measure_heavy,
    "burst": measure_burst,
    "paced": measure_paced,
    "slots": measure_slots,
    "switch": measure_switching,
    "events": measure_events,
    "runs": measure_runs,
    "beside": measure_beside,
}


def _all(stage: Stage, workload: Workload) -> list[Contender]:
    width = workload.width
    contenders: list[Contender] = [stage.fleet, stage.limit]
    if width <= stage.plan.widest_celery:
        contenders.append(stage.celery)
    if width <= WIDEST_UNCHUNKED and workload.kind in stage.plan.unchunked_parts:
        contenders.append(stage.unchunked)
    return contenders


def _measure_throughput(
    stage: Stage, workload: Workload, contenders: Sequence[Contender], seconds: float, named: str = ""
) -> None:
    name = named or workload.name
    rates = {contender.name: stage.warm_up(contender, workload) for contender in contenders}
    for number in range(stage.plan.rounds):
        for contender in in_turns(contenders, number):
            candles = _candles(workload, rates[contender.name] * seconds)
            run = contender.run(stage.take(contender, workload, candles))
            stage.results.add(name, contender.name, JOBS_PER_S, run.jobs_per_s)
    _tell(stage, workload, JOBS_PER_S, named)


def _candles(workload: Workload, jobs: float) -> int:
    """Return about how many candles make so many jobs; where some jobs pause, a number that keeps their share."""
    step = FEW_SYMBOLS if workload.pausing_share else 2
    return max(1, round(jobs / workload.width / step)) * step


def _add_latency(stage: Stage, workload: Workload, name: str, latencies_ms: Sequence[float]) -> None:
    stage.results.add(workload.name, name, P50_MS, statistics.median(latencies_ms))
    stage.results.add(workload.name, name, P95_MS, sorted(latencies_ms)[int(len(latencies_ms) * 0.95)])


def _tell(stage: Stage, workload: Workload, measure: str, named: str = "") -> None:
    name = named or workload.name
    found = [m for m in stage.results if m.key.workload == name and m.key.measure == measure]
    stage.say(f"{name}: {measure} " + ", ".join(f"{m.key.contender} {m.median:,.4g}" for m in found))
