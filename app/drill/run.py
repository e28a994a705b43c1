"""A drill from beginning to end: an undisturbed run to compare with, then fault after fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event

from app.drill.certificate import Certificate, Finding, Strike, digest, judge
from app.drill.faults import Fault
from app.drill.harness import DrillError, Fleet, Ground, ground
from app.drill.load import Load
from app.settings import Settings

#: A run without any fault, first: what everything is compared with.
UNDISTURBED = "undisturbed"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the innocent strategies say when nothing happens."""

    digest: str
    innocents: int
    """Outcomes."""


def hold_drill(
    settings: Settings,
    load: Load,
    faults: Sequence[Fault],
    stop: Event,
    say: Callable[[str], None],
) -> Certificate:
    """Hold a drill on embedded servers of its own; nothing of it remains.

    Args:
        settings: as loaded; servers that they name are left alone.
        load: the candles.
        faults: what to inject, one after the other.
        stop: ends it early.
        say: told what happens, a line at a time.

    Raises:
        DrillError: stopped early, or something broke that is not a finding.
        ConfigurationError: a server cannot be started.
    """
    began = time.monotonic()
    say("Starting PostgreSQL and Redis of the drill's own")
    with ground(settings, load, stop) as held:
        finding, expectation = run_undisturbed(held)
        findings = [finding]
        say(_line(finding))
        for fault in faults:
            findings.append(run_fault(held, fault, expectation))
            say(_line(findings[-1]))
    return Certificate(load.seed, load.candles, expectation.digest, tuple(findings), time.monotonic() - began)


def run_undisturbed(held: Ground) -> tuple[Finding, Expectation]:
    """Run the load without a fault.

    Raises:
        DrillError: not even that came to its end.
    """
    began = time.monotonic()
    with held.fleet() as fleet:
        fleet.start_producer()
        fleet.start()
        strike = Strike(datetime.now(UTC), frozenset())
        fleet.await_end()
        expectation = Expectation(digest(fleet), fleet.landed())
        finding = judge(
            fleet,
            fault=UNDISTURBED,
            title="no fault: what every other run is compared with",
            strike=strike,
            bound_s=0.0,
            undisturbed=expectation.digest,
            innocents=expectation.innocents,
            guilty=None,
            problems=(),
            elapsed_s=time.monotonic() - began,
        )
    return finding, expectation


def run_fault(held: Ground, fault: Fault, expectation: Expectation) -> Finding:
    """Run the load on a fleet of its own, inject a fault, wait until everything has landed, and count.

    Raises:
        DrillError: stopped early, or the fleet did not come to an end.
    """
    began = time.monotonic()
    with held.fleet(fault.entries) as fleet:
        try:
            fault.start_producer(fleet)  # first: it fills the queues while the nodes start
            fleet.start()
            struck = fault.inject(fleet)
        except DrillError as error:
            raise DrillError(f"{fault.name}: {error}") from error
        unended = _await_end(fleet)
        return judge(
            fleet,
            fault=fault.name,
            title=fault.title,
            strike=struck.strike,
            bound_s=fault.bound_s,
            undisturbed=expectation.digest,
            innocents=expectation.innocents,
            guilty=fault.guilty,
            problems=(*struck.problems, *unended),
            elapsed_s=time.monotonic() - began,
        )


def _await_end(fleet: Fleet) -> list[str]:
    """Wait for the end; one that does not come is a finding, not the end of the drill."""
    try:
        fleet.await_end()
    except DrillError as error:
        if fleet.stop.is_set():
            raise
        return [str(error)]
    return []


def _line(finding: Finding) -> str:
    recovery = "" if finding.recovery_s is None else f", right again after {finding.recovery_s:.1f} s"
    verdict = "well" if finding.is_good else "NOT WELL"
    counts = f"{finding.landed:,} of {finding.expected:,} landed, {finding.lost} lost, {finding.doubled} doubled"
    return f"{finding.fault}: {verdict}; {counts}{recovery} ({finding.elapsed_s:.0f} s)"
