"""Whether a deployment is well: one list of checks, each with what was found and what to do about it.

Every check stands alone: a server that is away is one problem, and what could not be asked of it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine

from app.broker import BATCH_QUEUE, CONTROL_QUEUE, QUEUES, create_celery
from app.domain.breakers import BreakerState
from app.domain.queues import QueueLimit, Waiting, why_full
from app.domain.strategies import StrategyStatus
from app.errors import BrokerUnavailableError, StorageUnavailableError
from app.maintenance.leadership import LOCK
from app.operations_pressure import describe_waiting
from app.operations_queues import Queues, QueueState
from app.settings import Settings
from app.storage import health, listings
from app.storage.breakers import list_breakers
from app.storage.dead_letters import count_dead_letters
from app.storage.engine import build_engine, translated
from app.storage.migrate import schema_state
from app.storage.nodes import count_slots, load_nodes
from app.storage.partitions import AHEAD
from app.storage.producers import load_producers
from app.storage.runs import load_open
from app.wording import counted

#: Oldest Redis that kombu works with.
REDIS_VERSION = (6, 2)

#: Messages of the fleet itself that may wait: they are small and served first.
CONTROL_LIMIT = 100

#: Time that maintenance may take to deal with what is overdue: several of its rounds, and a takeover.
GRACE = timedelta(seconds=30)


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    check: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty when all is well."""


def examine(settings: Settings) -> list[Check]:
    """Check a deployment. Never raises for what it is there to find.

    Args:
        settings: with the servers in them.
    """
    engine = build_engine(settings.database_dsn, name="candlefleet doctor", pool_size=1)
    queues = Queues(create_celery(settings))
    try:
        return [*_postgres(engine, settings), *_redis(settings.broker_dsn), *_queues(queues, settings)]
    finally:
        engine.dispose()


def is_well(checks: Iterable[Check]) -> bool:
    """Tell whether nothing is a problem; warnings are for people."""
    return all(check.state is not State.PROBLEM for check in checks)


def _postgres(engine: Engine, settings: Settings) -> Iterator[Check]:
    try:
        schema = schema_state(engine)
    except StorageUnavailableError as error:
        advice = "start it, or correct CANDLEFLEET_DATABASE_URL"
        yield Check("postgres", State.PROBLEM, str(error), advice)
        return
    yield Check("postgres", State.OK, "reachable")
    if not schema.is_current:
        found = f"{schema.current or 'empty'}, expected {schema.head}"
        yield Check("schema", State.PROBLEM, found, "run 'candlefleet db upgrade'")
        return
    yield Check("schema", State.OK, f"revision {schema.current}")
    checks: tuple[Callable[[Connection, Settings], Iterable[Check]], ...] = (
        _partitions,
        _maintenance,
        _nodes,
        _runs,
        _producers,
        _strategies,
        _unfinished,
        _letters,
        _correlation,
    )
    try:
        with translated(), engine.connect() as connection:
            for check in checks:
                yield from check(connection, settings)
    except StorageUnavailableError as error:
        yield Check("postgres", State.PROBLEM, str(error), "it went away while it was asked: look again")


def _partitions(connection: Connection, _: Settings) -> Iterator[Check]:
    ahead = health.count_partitions_ahead(connection)
    if ahead < 0:
        advice = "run 'candlefleet db upgrade' at once: no outcome can be recorded"
        yield Check("partitions", State.PROBLEM, "the one in use is missing", advice)
    else:
        is_enough = ahead >= AHEAD - 1
        advice = "" if is_enough else "run 'candlefleet maintenance'"
        yield Check("partitions", State.OK if is_enough else State.WARNING, f"{ahead} ahead", advice)


def _maintenance(connection: Connection, _: Settings) -> Iterator[Check]:
    if health.is_lock_held(connection, LOCK):
        yield Check("maintenance", State.OK, "active")
    else:
        advice = "run 'candlefleet maintenance': what is lost is not sent again, and no deadline closes"
        yield Check("maintenance", State.WARNING, "no process is active", advice)


def _nodes(connection: Connection, settings: Settings) -> Iterator[Check]:
    nodes = load_nodes(connection, settings.silence)
    alive = [node for node in nodes if node["is_alive"]]
    slots, busy = (sum(node[figure] for node in alive) for figure in ("slots", "busy"))
    if alive:
        yield Check("workers", State.OK, f"{len(alive)} alive, {busy} of {slots} slots busy")
    else:
        yield Check("workers", State.WARNING, "none is alive", "start one with 'candlefleet worker'")
    for node in nodes:
        if not node["is_alive"]:
            yield Check("workers", State.WARNING, f"{node['node']} was last seen {_ago(node['seen_at'])}", "look at it")
        elif node["overdue"]:
            found = f"{node['node']} runs past the hard limit: {', '.join(node['overdue'])}"
            yield Check("workers", State.PROBLEM, found, "restart this node: it does not end its slots")
        elif _is_deaf(node, settings):
            found = f"{node['node']} beats but has not answered since {_ago(node['canary_sent_at'])}"
            yield Check("workers", State.PROBLEM, found, "restart this node: it does not consume")
    served = {queue for node in alive for queue in node["queues"]}
    idle = [queue for queue in (CONTROL_QUEUE, *QUEUES) if alive and queue not in served]
    if idle:
        found = f"nobody consumes {', '.join(idle)}"
        yield Check("workers", State.PROBLEM, found, "start a node with these --queues")


def _runs(connection: Connection, settings: Settings) -> Iterator[Check]:
    waiting = [run for run in load_open(connection) if run.pending]
    if waiting and not count_slots(connection, settings.silence, [BATCH_QUEUE]):
        found = ", ".join(f"run {run.id} ({counted(run.pending, 'unit')})" for run in waiting)
        advice = f"start a node with 'candlefleet worker --queues {BATCH_QUEUE}'"
        yield Check("runs", State.WARNING, f"no node serves runs, and there waits {found}", advice)


def _producers(connection: Connection, settings: Settings) -> Iterator[Check]:
    producers = load_producers(connection, settings.silence)
    alive = [each for each in producers if each["is_alive"]]
    held = sum(sum(each["held"].values()) for each in alive)
    # a fleet whose feeds have all ended has no producer, and is well
    yield Check("producers", State.OK, f"{len(alive)} alive, {held:,} chunks held")
    for line in describe_waiting(producers):
        yield Check("producers", State.WARNING, line, "start more workers, or look for slow strategies")
    for each in producers:
        if not each["is_alive"]:
            found = f"{each['producer']} was last seen {_ago(each['seen_at'])}"
            yield Check("producers", State.WARNING, found, "start it again: maintenance sends what it held")
        elif sum(each["held"].values()) >= settings.dispatch.held_chunks:
            found = f"{each['producer']} holds all it may; {each['let_go']:,} chunks were left to maintenance"
            yield Check("producers", State.WARNING, found, "start more workers, or look for slow strategies")


def _is_deaf(node: dict[str, Any], settings: Settings) -> bool:
    sent, seen = node["canary_sent_at"], node["canary_seen_at"]
    if sent is None or (seen is not None and seen >= sent):
        return False
    return bool(datetime.now(UTC) - sent > timedelta(seconds=settings.maintenance.canary_s))


def _strategies(connection: Connection, _: Settings) -> Iterator[Check]:
    unrest = [row for row in list_breakers(connection) if row["state"] != BreakerState.CLOSED]
    if unrest:
        names = ", ".join(row["name"] for row in unrest)
        advice = "look at 'candlefleet outcomes --status failed'; it closes by itself when a probe succeeds"
        yield Check("breakers", State.WARNING, f"not closed: {names}", advice)
    else:
        yield Check("breakers", State.OK, "all closed")
    quarantined = listings.list_names(connection, StrategyStatus.QUARANTINED)
    if quarantined:
        advice = "correct it, then 'candlefleet strategies resume'"
        yield Check("quarantine", State.WARNING, f"killed slots: {', '.join(quarantined)}", advice)
    else:
        yield Check("quarantine", State.OK, "no strategy")
    rejected = listings.list_names(connection, StrategyStatus.REJECTED)
    if rejected:
        advice = "'candlefleet strategies show NAME' says why; correct it, then 'candlefleet strategies add'"
        yield Check("gate", State.WARNING, f"rejected: {', '.join(rejected)}", advice)
    else:
        yield Check("gate", State.OK, "no strategy is rejected")


def _unfinished(connection: Connection, settings: Settings) -> Iterator[Check]:
    counted = health.count_unfinished(connection, GRACE, settings.silence)
    if counted.overdue:
        found = f"{counted.overdue:,} past their expiry, the oldest is {counted.oldest}"
        advice = "run 'candlefleet maintenance', which ends them; see 'candlefleet trace'"
        yield Check("dispatches", State.PROBLEM, found, advice)
    elif counted.unpublished:
        advice = "run 'candlefleet maintenance', which sends them"
        yield Check("dispatches", State.WARNING, f"{counted.unpublished:,} were never published", advice)
    else:
        yield Check("dispatches", State.OK, f"{counted.unfinished:,} under way")


def _letters(connection: Connection, _: Settings) -> Iterator[Check]:
    count, newest = count_dead_letters(connection)
    if newest is None:
        yield Check("dead letters", State.OK, "none")
    else:
        advice = "look at them with 'candlefleet doctor --letters 20'"
        yield Check("dead letters", State.WARNING, f"{count:,}, the newest {_ago(newest)}", advice)


def _correlation(connection: Connection, _: Settings) -> Iterator[Check]:
    without = health.count_without_correlation(connection)
    if without:
        advice = "something else than the producer writes dispatches"
        yield Check("correlation", State.PROBLEM, f"{without:,} dispatches have no correlation id", advice)
    else:
        yield Check("correlation", State.OK, "every dispatch has an id to follow it by")


def _redis(dsn: str) -> Iterator[Check]:
    try:
        with Redis.from_url(dsn, socket_connect_timeout=5, socket_timeout=5) as client:
            known: dict[str, Any] = client.info()
    except (RedisError, OSError) as error:
        yield Check("redis", State.PROBLEM, f"away: {error}", "start it, or correct CANDLEFLEET_BROKER_URL")
        return
    version = str(known.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) >= REDIS_VERSION:
        yield Check("redis", State.OK, f"version {version}")
    else:
        yield Check("redis", State.PROBLEM, f"version {version}", "use Redis 6.2 or later")
    yield _eviction(known)
    yield _persistence(known)


def _eviction(known: dict[str, Any]) -> Check:
    policy = known.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        return Check("redis memory", State.OK, f"{known.get('used_memory_human', '?')}, {policy}")
    # with no limit nothing is evicted, whatever the policy says
    state = State.PROBLEM if known.get("maxmemory") else State.WARNING
    advice = "set maxmemory-policy noeviction: a queue must never be thrown away to make room"
    return Check("redis memory", state, f"policy {policy}", advice)


def _persistence(known: dict[str, Any]) -> Check:
    if known.get("aof_enabled"):
        return Check("redis persistence", State.OK, "append-only file")
    advice = "set 'appendonly yes': after a restart of Redis maintenance must send everything again"
    return Check("redis persistence", State.WARNING, "no append-only file", advice)


def _queues(queues: Queues, settings: Settings) -> Iterator[Check]:
    try:
        states = queues.look()
    except BrokerUnavailableError:
        return  # the check of Redis has said so
    late = [line for state in states for line in _late(state, settings)]
    depths = ", ".join(f"{state.queue} {state.depth}" for state in states)
    if late:
        yield Check("queues", State.WARNING, "; ".join(late), "start more workers, or look for slow strategies")
    else:
        yield Check("queues", State.OK, depths)


def _late(state: QueueState, settings: Settings) -> Iterator[str]:
    limit = settings.dispatch.limits.get(state.queue, QueueLimit(CONTROL_LIMIT))
    if reason := why_full(limit, Waiting(state.depth, state.oldest_s)):
        yield f"{state.queue} is {reason}"
    if state.oldest_s is not None and state.oldest_s > settings.dispatch.deadline_s:
        yield f"{state.queue} is late: {state.oldest_job} was dispatched {state.oldest_s:,.0f} s ago"


def _ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"
