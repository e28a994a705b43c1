"""How much is measured: the whole, a quick look, or one part of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.benchmark.workloads import Workload, burst, heavy, light, mixed, switched, three_pauses

#: Parts of a benchmark, in the order in which they are measured.
PARTS = ("light", "mixed", "heavy", "burst", "paced", "slots", "switch", "events", "runs", "beside")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and for how long."""

    rounds: int = 3
    """Measurements of each contender, in turns."""
    seconds: float = 4.0
    """About how long one throughput measurement takes, by what the contender did while it was warmed up. Filling the
    queues and emptying them takes this system a fifth of a second, which the limit does not have."""
    heavy_seconds: float = 2.0
    light_widths: tuple[int, ...] = (3, 50, 500)
    widest_celery: int = 500
    """Strategies of a candle up to which plain Celery is measured: its cost a job does not depend on them."""
    unchunked_parts: tuple[str, ...] = ("light", "mixed", "heavy")
    """Where throughput with one message a job is measured."""
    heavy_widths: tuple[int, ...] = (3, 50)
    burst_symbols: int = 500
    burst_rounds: int = 3
    paced_candles: int = 20
    """Candles of one latency measurement; fewer for a contender that needs long for each."""
    steady_seconds: float = 3.0
    switches: int = 10
    """Changes of a strategy in a round, at most 14."""
    run_candles: int = 100_000
    """Candles of a unit of a batch run; `window_candles` of one that is evaluated candle by candle."""
    window_candles: int = 2_000
    parts: tuple[str, ...] = PARTS

    def workloads(self) -> list[Workload]:
        """Return what has to be in the catalogue."""
        found = {f"light-{width}": light(width) for width in (*self.light_widths, 50)}
        found |= {f"heavy-{width}": heavy(width) for width in self.heavy_widths}
        return [*found.values(), mixed(50), burst(self.burst_symbols), three_pauses(), switched()]

    def measured(self) -> list[Workload]:
        """Return the workloads that this system's own node will have."""
        return [workload for workload in self.workloads() if workload.kind in self._kinds()]

    def _kinds(self) -> set[str]:
        # most parts are called as their workload; these compare light jobs with something
        light_too = {"mixed", "paced", "events", "beside"}
        return (set(self.parts) - {"slots", "switch", "runs", "beside"}) | (
            {"light"} if light_too & set(self.parts) else set()
        )


def build_plan(*, quick: bool, rounds: int | None, parts: Sequence[str]) -> Plan:
    """Build a plan.

    Args:
        quick: about a minute instead of several.
        rounds: None takes the plan's own.
        parts: only these; none means all.
    """
    plan = Plan()
    if quick:
        plan = Plan(
            rounds=3,
            seconds=0.4,
            heavy_seconds=0.8,
            light_widths=(50, 500),
            widest_celery=50,
            unchunked_parts=("light",),
            heavy_widths=(50,),
            burst_symbols=100,
            burst_rounds=1,
            paced_candles=12,
            steady_seconds=1.0,
            switches=4,
            run_candles=20_000,
            window_candles=500,
        )
    if rounds is not None:
        plan = replace(plan, rounds=rounds, burst_rounds=min(rounds, plan.burst_rounds))
    return replace(plan, parts=tuple(part for part in PARTS if part in parts)) if parts else plan
