"""The faults: what is broken, when, and what has to hold besides the counts.

Each strikes at an event, while work is on the queues and in the slots, never after a time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import psutil

from app.domain.jobs import OutcomeStatus
from app.drill.certificate import Strike
from app.drill.harness import DrillError, Fleet
from app.drill.load import Entry, Guilty
from app.embedded import KeptServer

#: Share of the candles that has been dispatched when a fault strikes.
STRIKE_AT = 0.25
#: Candles of a series after which a strategy begins to misbehave.
GUILTY_AFTER = 40
#: Seconds within which the innocent jobs of a dead slot's chunk land, beside their own time.
SLOT_BOUND_S = 2.0
#: Seconds within which the jobs of a dead node land.
NODE_BOUND_S = 15.0
#: Seconds within which everything goes on once a server is back.
SERVER_BOUND_S = 15.0
#: Duplicate deliveries of the check that they change no row.
REPEATS = 10_000
#: Seconds for which a server does not answer: longer than any chunk's hard limit.
FROZEN_S = 8.0

Injection = Callable[[Fleet], "Struck"]


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was done: when, and what it found wrong by itself."""

    strike: Strike
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the drill."""

    name: str
    title: str
    inject: Injection
    bound_s: float
    guilty: Guilty | None = None
    start_producer: Callable[[Fleet], None] = Fleet.start_producer

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Strategies that are there for this fault only."""
        return (self.guilty.entry,) if self.guilty else ()


def strike_now(fleet: Fleet) -> Strike:
    """Note what is under way now."""
    unfinished = frozenset(fleet.unfinished())
    if not unfinished:
        raise DrillError("nothing was under way when the fault was to strike")
    return Strike(datetime.now(UTC), unfinished)


def kill_slot(fleet: Fleet) -> Struck:
    """SIGKILL slots until one dies with a chunk in its hands; the first try nearly always does."""
    fleet.await_work(STRIKE_AT)
    while not (deaths := fleet.log_lines("slot died")):
        strike = strike_now(fleet)
        victim = fleet.slot_pids("worker-1")[0]
        os.kill(victim, signal.SIGKILL)
        fleet.wait(partial(_is_replaced, fleet, victim), "the slot is replaced")
    return Struck(Strike(strike.at, frozenset({int(deaths[0].fields["dispatch"])})))


def kill_worker(fleet: Fleet) -> Struck:
    """SIGKILL a worker node with all it has, as the loss of its machine would; nobody starts it again."""
    fleet.await_work(STRIKE_AT)
    strike = strike_now(fleet)
    fleet.children.discard("worker-1")
    return Struck(strike)


def orphan_slots(fleet: Fleet) -> Struck:
    """SIGKILL a node's main process alone: its slots must not go on without it."""
    fleet.await_work(STRIKE_AT)
    strike, slots = strike_now(fleet), fleet.slot_pids("worker-1")
    fleet.children.signal("worker-1", signal.SIGKILL)
    fleet.children.wait("worker-1")
    fleet.wait(lambda: not any(_exists(pid) for pid in slots), "the slots end with their node", 10.0)
    fleet.children.forget("worker-1")
    return Struck(strike)


def stop_worker(fleet: Fleet) -> Struck:
    """SIGTERM to one node after the other, each started again: a rolling restart under load."""
    problems, strike = [], None
    for worker in fleet.workers:
        fleet.await_work(STRIKE_AT)
        strike = strike or strike_now(fleet)
        problems.extend(_stop(fleet, worker))
        fleet.start_worker(worker)
        fleet.await_nodes(len(fleet.workers))
    assert strike is not None  # noqa: S101 - there are workers
    return Struck(strike, problems)


def kill_producer(fleet: Fleet) -> Struck:
    """SIGKILL the producer between commit and publish, then start it again on the same feed from its beginning."""
    fleet.await_work(STRIKE_AT)
    fleet.wait(lambda: _unpublished(fleet) > 0, "the producer is between commit and publish")
    strike = strike_now(fleet)
    fleet.children.kill("producer")
    problems = [] if _unpublished(fleet) else ["nothing was left unpublished: the kill came too late"]
    fleet.start_producer()
    return Struck(strike, problems)


def stop_producer(fleet: Fleet) -> Struck:
    """SIGTERM to the producer: it finishes the batch it is on and says what it did; then started again."""
    fleet.await_work(STRIKE_AT)
    strike, asked = strike_now(fleet), time.monotonic()
    fleet.children.signal("producer", signal.SIGTERM)
    code = fleet.children.wait("producer")
    took = time.monotonic() - asked
    problems = [f"the producer ended with exit code {code}"] if code else []
    if '"candles"' not in fleet.children.tail("producer", 20):
        problems.append("the producer ended without its report")
    if took > SERVER_BOUND_S:
        problems.append(f"the producer took {took:.1f} s to end")
    fleet.start_producer()
    return Struck(strike, problems)


def restart(kind: str, *, wipe: bool = False, down_s: float = 0.0) -> Injection:
    """Return the fault that takes a server away for a while, with or without its data."""

    def inject(fleet: Fleet) -> Struck:
        fleet.await_work(STRIKE_AT)
        before = strike_now(fleet)
        server: KeptServer = fleet.ground.server(kind)
        server.stop()
        fleet.stop.wait(down_s)  # the outage itself, not a wait for something
        if wipe:
            server.restart(wipe=True)
        else:
            server.start()
        # counted from when it is back: the length of an outage is not ours
        return Struck(Strike(datetime.now(UTC), before.dispatches))

    return inject


def start_repeating(fleet: Fleet) -> None:
    """Start a producer that sends every message several times."""
    fleet.children.start("producer", "app.drill.repeating", fleet.candles, str(REPEATS))


def freeze(kind: str) -> Injection:
    """Return the fault that stops a server without ending it: it neither answers nor refuses."""

    def inject(fleet: Fleet) -> Struck:
        fleet.await_work(STRIKE_AT)
        before = strike_now(fleet)
        main = psutil.Process(fleet.ground.server(kind).pid)
        processes = [main, *main.children(recursive=True)]
        try:
            for process in processes:
                process.suspend()
            fleet.stop.wait(FROZEN_S)
        finally:
            for process in processes:
                process.resume()
        return Struck(Strike(datetime.now(UTC), before.dispatches))

    return inject


def repeat(fleet: Fleet) -> Struck:
    """Every message three times; then, when everything has landed, so many messages again, and no row changes."""
    fleet.await_work(STRIKE_AT)
    strike = strike_now(fleet)
    fleet.wait(lambda: not fleet.unfinished() and _said(fleet, "published"), "everything landed")
    fleet.wait(lambda: not sum(fleet.publisher.depths().values()), "the copies are consumed")
    before = fingerprint(fleet)
    fleet.children.signal("producer", signal.SIGUSR1)
    fleet.wait(lambda: fleet.children.exit_code("producer") is not None, "the repetitions are published")
    fleet.wait(lambda: fleet.is_idle(), "the repetitions are consumed")
    changed = [name for name, was in before.items() if fingerprint(fleet)[name] != was]
    return Struck(strike, [f"{REPEATS:,} duplicate deliveries changed {name}" for name in changed])


def misbehave(fleet: Fleet) -> Struck:
    """Wait until the guilty strategy has shown itself."""

    def first() -> Strike | None:
        rows = fleet.rows("""
            SELECT min(finished_at), min(dispatch_id) FROM (
                SELECT finished_at, dispatch_id FROM attempts
                UNION ALL SELECT finished_at, dispatch_id FROM outcomes WHERE status NOT IN ('succeeded', 'skipped')
            ) AS failed
        """)
        return Strike(rows[0][0], frozenset({rows[0][1]})) if rows[0][0] else None

    strike = fleet.wait(first, "the guilty strategy misbehaves")
    assert strike is not None  # noqa: S101 - wait returns truthy answers only
    return Struck(strike)


def fingerprint(fleet: Fleet) -> dict[str, str]:
    """Return a digest of every row of the tables that delivery writes to, times included."""
    return {
        name: fleet.rows(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {name} t")[0][0]  # noqa: S608 - our names
        for name in ("outcomes", "attempts", "decisions", "dispatches", "breakers")
    }


def _stop(fleet: Fleet, worker: str) -> list[str]:
    asked = time.monotonic()
    fleet.children.signal(worker, signal.SIGTERM)
    code = fleet.children.wait(worker)
    took, problems = time.monotonic() - asked, []
    if code:
        problems.append(f"{worker} ended with exit code {code}")
    if took > fleet.shutdown_s:
        problems.append(f"{worker} took {took:.1f} s to end, {fleet.shutdown_s:g} s are allowed")
    if worker in fleet.node_names():
        problems.append(f"{worker} is still among the nodes")
    return problems


def _is_replaced(fleet: Fleet, pid: int) -> bool:
    slots = fleet.slot_pids("worker-1")
    return bool(slots) and pid not in slots


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _unpublished(fleet: Fleet) -> int:
    return int(fleet.rows("SELECT count(*) FROM dispatches WHERE published_at IS NULL")[0][0])


def _said(fleet: Fleet, word: str) -> bool:
    return word in fleet.children.tail("producer", 5)


def _guilty(cls: str, worst: OutcomeStatus, *, quarantined: bool = False, timeout_ms: int = 2000) -> Guilty:
    retries = 2 if quarantined else 1
    entry = Entry(cls.lower(), cls, {"after": GUILTY_AFTER}, ("ALPHA-USD",), timeout_ms, retries)
    return Guilty(entry, worst, quarantined)


def _strategy(name: str, title: str, guilty: Guilty) -> Fault:
    return Fault(name, title, misbehave, SLOT_BOUND_S, guilty)


def build_faults(outage_s: float) -> tuple[Fault, ...]:
    """Build all faults, in the order of the certificate.

    Args:
        outage_s: how long a server is away in the long outages.
    """
    crashed, timed_out, failed = OutcomeStatus.CRASHED, OutcomeStatus.TIMED_OUT, OutcomeStatus.FAILED
    return (
        Fault("kill-slot", "SIGKILL to a busy slot", kill_slot, SLOT_BOUND_S),
        Fault("kill-worker", "SIGKILL to a worker node and its slots", kill_worker, NODE_BOUND_S),
        Fault("orphan-slots", "SIGKILL to a node's main process alone", orphan_slots, NODE_BOUND_S),
        Fault(
            "stop-worker",
            "SIGTERM to each node in turn, under load",
            stop_worker,
            NODE_BOUND_S,
            start_producer=Fleet.start_paced_producer,
        ),
        Fault("kill-producer", "SIGKILL to the producer between commit and publish", kill_producer, NODE_BOUND_S),
        Fault("stop-producer", "SIGTERM to the producer", stop_producer, NODE_BOUND_S),
        Fault("restart-redis", "Redis restarted with its data", restart("redis"), SERVER_BOUND_S),
        Fault("wipe-redis", "Redis restarted empty", restart("redis", wipe=True), SERVER_BOUND_S),
        Fault("restart-postgres", "PostgreSQL restarted", restart("postgres"), SERVER_BOUND_S),
        Fault("freeze-redis", f"Redis frozen for {FROZEN_S:g} s", freeze("redis"), SERVER_BOUND_S),
        Fault("freeze-postgres", f"PostgreSQL frozen for {FROZEN_S:g} s", freeze("postgres"), SERVER_BOUND_S),
        Fault("redis-away", f"Redis away for {outage_s:g} s", restart("redis", down_s=outage_s), SERVER_BOUND_S),
        Fault(
            "postgres-away",
            f"PostgreSQL away for {outage_s:g} s",
            restart("postgres", down_s=outage_s),
            SERVER_BOUND_S,
        ),
        Fault(
            "duplicates",
            f"every message three times, {REPEATS:,} again at the end",
            repeat,
            NODE_BOUND_S,
            start_producer=start_repeating,
        ),
        _strategy("segfault", "a strategy that reads address zero", _guilty("Segfaults", crashed, quarantined=True)),
        _strategy("oom-kill", "a strategy that the kernel kills", _guilty("IsKilled", crashed, quarantined=True)),
        _strategy(
            "hang",
            "a strategy that hangs in C and keeps the interpreter lock",
            _guilty("HangsInC", timed_out, quarantined=True, timeout_ms=300),
        ),
        _strategy("leak", "a strategy that takes memory until it is refused", _guilty("Leaks", failed)),
        _strategy("raise", "a strategy that raises", _guilty("Raises", failed)),
        _strategy("sleep", "a strategy that sleeps past its limit", _guilty("Sleeps", timed_out, timeout_ms=100)),
    )
