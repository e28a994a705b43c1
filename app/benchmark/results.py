"""Results: every measured value, by workload, contender and measure; and the ratios that are drawn from them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Measures. Their units are in their names; `share` and `growth` have none.
JOBS_PER_S, P50_MS, P95_MS, LIGHT_P95_MS = "jobs_per_s", "p50_ms", "p95_ms", "light_p95_ms"
UTILISATION, START_MB, END_MB = "utilisation", "start_mb", "end_mb"
SWITCH_MS, SLOT_MB = "switch_ms", "slot_mb"
CANDLES_PER_S = "candles_per_s"

#: Contenders.
FLEET, UNCHUNKED, CELERY, LIMIT = "candlefleet", "unchunked", "celery", "limit"
SEQUENTIAL, QUIET, SIGNALS, IDLE = "sequential", "quiet", "signals only", "idle fleet"


class Key(NamedTuple):
    """What was measured."""

    workload: str
    contender: str
    measure: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """The values of all rounds."""

    key: Key
    values: Sequence[float]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    def document(self) -> dict[str, Any]:
        """Build its part of the JSON document."""
        spread = {"median": self.median, "min": min(self.values), "max": max(self.values)}
        rounded = {name: round(value, 4) for name, value in spread.items()}
        return {**self.key._asdict(), **rounded, "values": [round(value, 4) for value in self.values]}


@dataclass(slots=True)
class Results:
    """Everything measured so far, in the order in which it first appeared."""

    _values: dict[Key, list[float]] = field(default_factory=dict)

    def add(self, workload: str, contender: str, measure: str, value: float) -> None:
        """Add the value of one round."""
        self._values.setdefault(Key(workload, contender, measure), []).append(value)

    def __iter__(self) -> Iterator[Measurement]:
        return (Measurement(key, values) for key, values in self._values.items())

    def find(self, workload: str, contender: str, measure: str) -> Measurement | None:
        """Return a measurement, None when it was not made."""
        key = Key(workload, contender, measure)
        return Measurement(key, self._values[key]) if key in self._values else None


class Quotient(NamedTuple):
    """A ratio of two medians."""

    over: Key
    under: Key


#: What is drawn from the measurements.
RATIOS: dict[str, Quotient] = {
    "throughput_vs_celery": Quotient(Key("light-50", FLEET, JOBS_PER_S), Key("light-50", CELERY, JOBS_PER_S)),
    "throughput_vs_limit": Quotient(Key("light-50", FLEET, JOBS_PER_S), Key("light-50", LIMIT, JOBS_PER_S)),
    "latency_vs_celery": Quotient(Key("light-50", FLEET, P50_MS), Key("light-50", CELERY, P50_MS)),
    "latency_growth_10x": Quotient(Key("light-500", FLEET, P50_MS), Key("light-50", FLEET, P50_MS)),
    "three_slots_vs_sequential": Quotient(Key("slots-3", SEQUENTIAL, P50_MS), Key("slots-3", FLEET, P50_MS)),
    "mixed_light_p95": Quotient(Key("mixed-50", FLEET, LIGHT_P95_MS), Key("light-50", FLEET, LIGHT_P95_MS)),
    "heavy_vs_limit": Quotient(Key("heavy-50", FLEET, JOBS_PER_S), Key("heavy-50", LIMIT, JOBS_PER_S)),
    "burst_memory_growth": Quotient(Key("burst-100", FLEET, END_MB), Key("burst-100", FLEET, START_MB)),
    "runs_vs_plain": Quotient(Key("runs-auto", FLEET, CANDLES_PER_S), Key("runs-auto", SEQUENTIAL, CANDLES_PER_S)),
    "runs_vs_signals": Quotient(Key("runs-auto", FLEET, CANDLES_PER_S), Key("runs-auto", SIGNALS, CANDLES_PER_S)),
    "runs_by_window_vs_plain": Quotient(
        Key("runs-windows", FLEET, CANDLES_PER_S), Key("runs-windows", SEQUENTIAL, CANDLES_PER_S)
    ),
    "live_p95_beside_run": Quotient(Key("beside-50", FLEET, P95_MS), Key("beside-50", IDLE, P95_MS)),
    "events_cost": Quotient(Key("events-50", FLEET, JOBS_PER_S), Key("events-50", QUIET, JOBS_PER_S)),
}
#: Held to a bound as they are, and not as a quotient of two measurements.
PLAIN: dict[str, Key] = {
    "burst_utilisation": Key("burst-100", FLEET, UTILISATION),
    "switch_ms": Key("switch-100", FLEET, SWITCH_MS),
    "slot_mb": Key("switch-100", FLEET, SLOT_MB),
}


def build_ratios(results: Results) -> dict[str, float]:
    """Build every ratio whose measurements were made, each from the medians of its rounds."""
    ratios = {}
    for name, quotient in RATIOS.items():
        over, under = results.find(*quotient.over), results.find(*quotient.under)
        if over is not None and under is not None and under.median > 0:
            ratios[name] = over.median / under.median
    for name, key in PLAIN.items():
        plain = results.find(*key)
        if plain is not None:
            ratios[name] = plain.median
    return ratios
