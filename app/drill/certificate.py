"""Counting after a fault: what was expected, what landed, what is lost, doubled or different."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.domain.jobs import OutcomeStatus
from app.drill.harness import Fleet
from app.drill.load import Guilty

#: Every row that says something about an innocent job: what it computed, not when, where or at which attempt.
_DIGESTED = """
    SELECT d.symbol, d.timeframe, d.open_time, s.name, o.status, o.action, o.strength, o.edge, o.detail::text
    FROM outcomes o JOIN dispatches d ON d.id = o.dispatch_id JOIN strategies s ON s.id = o.strategy_id
    WHERE NOT s.name = ANY(:guilty)
    ORDER BY d.symbol, d.timeframe, d.open_time, s.name, d.revision, d.id
"""

_COUNTS = """
    SELECT (SELECT coalesce(sum(expected), 0) FROM dispatches) AS expected,
           (SELECT coalesce(sum(landed), 0) FROM dispatches) AS counted,
           (SELECT count(*) FROM outcomes) AS landed,
           (SELECT count(*) FROM attempts) AS attempts,
           (SELECT count(*) FROM dispatches) AS dispatches,
           (SELECT count(*) FROM decisions) AS decisions,
           (SELECT count(*) FROM candles) AS candles,
           (SELECT coalesce(max(sends), 0) FROM dispatches) AS most_sends,
           (SELECT count(*) FROM (
                SELECT FROM outcomes o JOIN dispatches d ON d.id = o.dispatch_id
                GROUP BY d.symbol, d.timeframe, d.open_time, d.revision, o.strategy_id HAVING count(*) > 1) AS twice
           ) AS twice
"""

_GUILTY = """
    SELECT o.status, count(*) FROM outcomes o JOIN strategies s ON s.id = o.strategy_id
    WHERE s.name = ANY(:guilty) GROUP BY o.status ORDER BY o.status
"""

_LAST_INNOCENT = """
    SELECT max(o.finished_at) FROM outcomes o JOIN strategies s ON s.id = o.strategy_id
    WHERE o.dispatch_id = ANY(:dispatches) AND NOT s.name = ANY(:guilty)
"""


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that was injected."""

    at: datetime
    """When."""
    dispatches: frozenset[int]
    """Unfinished then."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one fault."""

    fault: str
    title: str
    expected: int
    """Jobs."""
    landed: int
    lost: int
    doubled: int
    attempts: int
    """Attempts that did not succeed, recorded beside the outcomes."""
    recovery_s: float | None
    """From the fault until the last innocent job landed that was under way then."""
    bound_s: float
    """What recovery may take."""
    digest: str
    is_equal: bool
    """Whether what the innocent strategies say is what they say undisturbed."""
    guilty: Mapping[str, int] = field(default_factory=dict)
    """How the jobs of a guilty strategy ended."""
    problems: Sequence[str] = ()
    """What else is wrong; empty is well."""
    elapsed_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or different, and it took no longer than it may."""
        return not (self.lost or self.doubled or self.problems) and self.is_equal

    def document(self) -> dict[str, Any]:
        """Build its part of the JSON document."""
        return {**asdict(self), "is_good": self.is_good}


@dataclass(frozen=True, slots=True)
class Certificate:
    """The drill's whole answer."""

    seed: int
    candles: int
    digest: str
    """Of the undisturbed run."""
    findings: tuple[Finding, ...]
    elapsed_s: float

    @property
    def is_good(self) -> bool:
        """Whether every fault came right."""
        return all(finding.is_good for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """Build the JSON document of ``candlefleet drill --json``."""
        return {
            "seed": self.seed,
            "candles": self.candles,
            "digest": self.digest,
            "is_good": self.is_good,
            "elapsed_s": round(self.elapsed_s, 1),
            "faults": [finding.document() for finding in self.findings],
        }


def digest(fleet: Fleet, guilty: Sequence[str] = ()) -> str:
    """Return the SHA-256 of everything that the innocent strategies said."""
    sha = hashlib.sha256()
    for row in fleet.rows(_DIGESTED, guilty=list(guilty)):
        sha.update(repr(tuple(row)).encode())
    return sha.hexdigest()


def judge(
    fleet: Fleet,
    *,
    fault: str,
    title: str,
    strike: Strike,
    bound_s: float,
    undisturbed: str,
    innocents: int,
    guilty: Guilty | None,
    problems: Sequence[str],
    elapsed_s: float,
) -> Finding:
    """Count what came of a fault.

    Args:
        fleet: on which everything has landed.
        fault: its name.
        title: what was done.
        strike: when it was done.
        bound_s: what recovery may take.
        undisturbed: digest without any fault.
        innocents: outcomes that the innocent strategies owe.
        guilty: the strategy that misbehaved, if one did.
        problems: what the fault itself found wrong.
        elapsed_s: since the fleet was started.
    """
    names = [guilty.entry.name] if guilty else []
    counts = fleet.rows(_COUNTS)[0]
    ends = {row[0]: int(row[1]) for row in fleet.rows(_GUILTY, guilty=names)}
    found = digest(fleet, names)
    recovery_s = _recovery(fleet, strike, names)
    innocent = counts.landed - sum(ends.values())
    return Finding(
        fault=fault,
        title=title,
        expected=innocents + int(counts.expected) - fleet.ground.load.candles * innocents_per_candle(fleet, innocents),
        landed=int(counts.landed),
        lost=max(0, innocents - innocent) + max(0, int(counts.expected) - int(counts.landed)),
        doubled=doubled(counts),
        attempts=int(counts.attempts),
        recovery_s=recovery_s,
        bound_s=bound_s,
        digest=found,
        is_equal=found == undisturbed,
        guilty=ends,
        problems=(*problems, *_problems(fleet, counts, ends, guilty, recovery_s, bound_s)),
        elapsed_s=round(elapsed_s, 1),
    )


def innocents_per_candle(fleet: Fleet, innocents: int) -> int:
    """Return how many innocent strategies each candle goes to."""
    return innocents // fleet.ground.load.candles


def doubled(counts: Any) -> int:
    """Return how many things are there more often than once: jobs by candle and strategy, counts, decisions."""
    return int(counts.twice + abs(counts.counted - counts.landed) + max(0, counts.decisions - counts.dispatches))


def _recovery(fleet: Fleet, strike: Strike, guilty: Sequence[str]) -> float | None:
    deaths = fleet.log_lines("slot died: its jobs are sent again") if guilty else []
    times = [(line.at, frozenset({int(line.fields["dispatch"])})) for line in deaths]
    waits = [_wait(fleet, at, dispatches, guilty) for at, dispatches in times or [(strike.at, strike.dispatches)]]
    known = [wait for wait in waits if wait is not None]
    return round(max(known), 2) if known else None


def _wait(fleet: Fleet, since: datetime, dispatches: frozenset[int], guilty: Sequence[str]) -> float | None:
    last = fleet.rows(_LAST_INNOCENT, dispatches=list(dispatches), guilty=list(guilty))[0][0]
    return None if last is None else max(timedelta(0), last - since).total_seconds()


def _problems(
    fleet: Fleet,
    counts: Any,
    ends: Mapping[str, int],
    guilty: Guilty | None,
    recovery_s: float | None,
    bound_s: float,
) -> list[str]:
    problems = []
    if counts.candles != fleet.ground.load.candles or counts.dispatches != counts.candles:
        problems.append(f"{counts.candles} candles and {counts.dispatches} dispatches of {fleet.ground.load.candles}")
    if counts.decisions < counts.dispatches:
        problems.append(f"{counts.dispatches - counts.decisions} dispatches without a decision")
    if recovery_s is not None and recovery_s > bound_s:
        problems.append(f"recovery took {recovery_s:g} s, {bound_s:g} s are allowed")
    if guilty is not None:
        problems.extend(_misjudged(fleet, ends, guilty))
    return problems


def _misjudged(fleet: Fleet, ends: Mapping[str, int], guilty: Guilty) -> list[str]:
    problems = [f"{guilty.entry.name} has jobs that {end}" for end in sorted(ends.keys() - guilty.allowed)]
    if guilty.worst not in ends:
        problems.append(f"no job of {guilty.entry.name} is recorded as {guilty.worst}")
    status = fleet.rows("SELECT status FROM strategies WHERE name = :name", name=guilty.entry.name)[0][0]
    expected = "quarantined" if guilty.is_quarantined else "active"
    if status != expected:
        problems.append(f"{guilty.entry.name} is {status}, expected {expected}")
    breaker = fleet.rows(
        "SELECT trips FROM breakers JOIN strategies s ON s.id = strategy_id WHERE s.name = :name AND trips > 0",
        name=guilty.entry.name,
    )
    if not breaker and guilty.worst is not OutcomeStatus.SUCCEEDED:
        problems.append(f"the breaker of {guilty.entry.name} did not trip")
    return problems
