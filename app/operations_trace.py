"""The story of a candle or of one job, in time order, told from what the ledger holds. Pure, but for `trace`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.domain.jobs import OutcomeStatus, job_id
from app.errors import CandlefleetError, ConfigurationError
from app.operations import Operations
from app.storage.cancellation import LAST_ID
from app.storage.trace import Facts, Row, load_facts

_JOB = re.compile(r"(\d+)\.(\d+)")
_CORRELATION = re.compile(r"[0-9a-f]{32}")

#: Ends that a job comes to without being executed.
_NOT_EXECUTED = (OutcomeStatus.SKIPPED, OutcomeStatus.EXPIRED, OutcomeStatus.CANCELLED)

_WORDS = {1: "long", 0: "flat", -1: "short", None: "no action"}


class UntraceableError(CandlefleetError):
    """Nothing in the ledger has the id that was asked for."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    at: datetime
    after_ms: float
    """Since the dispatch was written; negative before."""
    what: str
    """``candle``, ``dispatched``, ``published``, ``started``, ``attempt``, ``landed``, ``decided``, ``breaker``,
    ``position``, ``action``, ``completed``."""
    who: str
    """The strategy, or empty when it is about the whole."""
    detail: str
    """For people."""
    is_late: bool = False
    """An outcome that landed after the decision and does not count in it."""
    data: dict[str, Any] = field(default_factory=dict)
    """The same for programs."""


@dataclass(frozen=True, slots=True)
class SentChunk:
    """Jobs that were sent together."""

    priority: str
    """The queue they went to."""
    strategies: list[str]
    reason: str
    """Why these together and no others."""
    estimated_ms: float
    """What they were thought to take, when the plan was first used."""


@dataclass(frozen=True, slots=True)
class Story:
    """What happened to a dispatch, or to one job of it."""

    dispatch_id: int
    job: str | None
    correlation_id: str
    symbol: str
    timeframe: str
    open_time: datetime
    revision: int
    state: str
    expected: int
    landed: int
    missing: list[str]
    """Strategies without an outcome so far."""
    events: list[Event]
    chunks: list[SentChunk]
    """How its jobs were first sent; one job's story has only its own chunk."""


def trace(operations: Operations, wanted: str) -> Story:
    """Tell the story of an id.

    Args:
        operations: of the deployment.
        wanted: a correlation id, a dispatch's id, or a job's ``<dispatch>.<strategy>``.

    Raises:
        ConfigurationError: it is none of these.
        UntraceableError: nothing in the ledger has it.
        StorageUnavailableError: Postgres is away.
    """
    dispatch_id, strategy_id, correlation_id = _read_id(wanted.strip().lower())
    with operations.reading() as connection:
        facts = load_facts(connection, dispatch_id=dispatch_id, correlation_id=correlation_id)
    if facts is None or (strategy_id is not None and all(job["strategy_id"] != strategy_id for job in facts.jobs)):
        raise UntraceableError(f"nothing in the ledger has the id {wanted}: see 'candlefleet dispatches'")
    return build_story(facts, strategy_id)


def build_story(facts: Facts, strategy_id: int | None = None) -> Story:
    """Put facts into time order.

    Args:
        facts: of one dispatch.
        strategy_id: leaves out what happened to other jobs; None tells of all.
    """
    dispatch = facts.dispatch
    jobs = [job for job in facts.jobs if strategy_id in (None, job["strategy_id"])]
    attempts = [row for row in facts.attempts if strategy_id in (None, row["strategy_id"])]
    breakers = [row for row in facts.breakers if strategy_id in (None, row["strategy_id"])]
    events = [
        *_of_candle(facts),
        *_of_dispatch(facts, jobs),
        *(_of_attempt(dispatch, row) for row in attempts),
        *(event for job in jobs for event in _of_job(facts, job, alone=strategy_id is not None)),
        *(_of_breaker(dispatch, row) for row in breakers),
        *(_of_position(dispatch, row) for row in facts.positions if strategy_id in (None, row["strategy_id"])),
        *(_of_action(dispatch, row) for row in facts.actions if strategy_id in (None, row["strategy_id"])),
        *_of_decision(facts),
    ]
    return Story(
        dispatch_id=dispatch["id"],
        job=None if strategy_id is None else job_id(dispatch["id"], strategy_id),
        correlation_id=dispatch["correlation_id"],
        symbol=dispatch["symbol"],
        timeframe=dispatch["timeframe"],
        open_time=dispatch["open_time"],
        revision=dispatch["revision"],
        state=dispatch["state"],
        expected=dispatch["expected"],
        landed=dispatch["landed"],
        missing=[job["strategy"] for job in jobs if job["status"] is None],
        events=sorted(events, key=lambda event: event.at),  # stable: of one moment, in the order of the way
        chunks=_chunks(facts, strategy_id),
    )


def _chunks(facts: Facts, strategy_id: int | None) -> list[SentChunk]:
    names = {job["strategy_id"]: job["strategy"] for job in facts.jobs}
    return [
        SentChunk(
            priority=chunk["priority"],
            strategies=[names.get(number, str(number)) for number in chunk["strategies"]],
            reason=chunk["reason"],
            estimated_ms=chunk["estimated_ms"],
        )
        for chunk in facts.plan
        if strategy_id is None or strategy_id in chunk["strategies"]
    ]


def _read_id(wanted: str) -> tuple[int | None, int | None, str | None]:
    job = _JOB.fullmatch(wanted)
    if job is not None and int(job[1]) <= LAST_ID:
        return int(job[1]), int(job[2]), None
    if _CORRELATION.fullmatch(wanted):  # before the number: 32 digits may all be decimal
        return None, None, wanted
    if wanted.isdecimal() and int(wanted) <= LAST_ID:
        return int(wanted), None, None
    forms = "a correlation id (32 hex digits), a dispatch such as 1042, or a job such as 1042.7"
    raise ConfigurationError(f"expected {forms}, found {wanted!r}")


def _event(dispatch: Row, at: datetime, what: str, who: str, detail: str, **data: Any) -> Event:
    return Event(at, (at - dispatch["created_at"]).total_seconds() * 1000, what, who, detail, data=data)


def _of_candle(facts: Facts) -> Iterator[Event]:
    candle, dispatch = facts.candle, facts.dispatch
    if candle is None:
        return
    if candle["revision"] == dispatch["revision"]:
        detail = f"from {candle['source']}, " + (f"revision {candle['revision']}" if candle["revision"] else "new")
    else:
        detail = f"corrected meanwhile: now revision {candle['revision']}, from {candle['source']}"
    known = {"source": candle["source"], "revision": candle["revision"]}
    yield _event(dispatch, candle["received_at"], "candle", "", detail, **known)


def _of_dispatch(facts: Facts, jobs: list[Row]) -> Iterator[Event]:
    dispatch = facts.dispatch
    names = [job["strategy"] for job in jobs]
    asked = f"{dispatch['expected']} strategies expected" if len(jobs) == len(facts.jobs) else f"{names[0]} expected"
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    detail = f"{asked}: {shown}" if len(names) > 1 else asked
    yield _event(dispatch, dispatch["created_at"], "dispatched", "", detail, strategies=names)
    if dispatch["published_at"] is not None:
        sends = dispatch["sends"]
        detail = "on the queues" if sends == 1 else f"on the queues, sent {sends} times, the last time now"
        yield _event(dispatch, dispatch["published_at"], "published", "", detail, sends=sends)


def _of_attempt(dispatch: Row, row: Row) -> Event:
    detail = (
        f"attempt {row['attempt'] + 1} {_word(row['status'])} after {row['processing_ms']:,.1f} ms on {row['worker']}: "
        f"{_first_line(row['error_class'], row['error'])}; tried again"
    )
    names = ("strategy_id", "attempt", "status", "error_class", "error", "processing_ms", "worker")
    known = {name: row[name] for name in names}
    return _event(dispatch, row["finished_at"], "attempt", row["strategy"], detail, **known)


def _of_job(facts: Facts, job: Row, *, alone: bool) -> Iterator[Event]:
    if job["status"] is None:
        return
    executed = job["status"] not in _NOT_EXECUTED
    if alone and executed:
        at = _started_at(facts.dispatch, job)
        detail = f"after {job['queued_ms']:,.1f} ms on queue {job['priority'] or '?'}, on {job['worker']}"
        yield _event(facts.dispatch, at, "started", job["strategy"], detail, queued_ms=job["queued_ms"])
    names = ("strategy_id", "strategy_revision", "status", "action", "strength", "edge", "error_class", "error")
    known = {name: job[name] for name in (*names, "attempt", "queued_ms", "processing_ms", "worker")}
    known |= {"job": job_id(facts.dispatch["id"], job["strategy_id"]), "is_late": _is_late(facts, job)}
    if executed:
        known["started_at"] = _started_at(facts.dispatch, job)
    detail = _ending(job) + (_timing(job) if executed else f" ({job['worker']})")
    event = _event(facts.dispatch, job["finished_at"], "landed", job["strategy"], detail, **known)
    yield Event(event.at, event.after_ms, event.what, event.who, detail, known["is_late"], event.data)


def _started_at(dispatch: Row, job: Row) -> datetime:
    # what the worker measured, but never past the row's own clock: the clocks of two machines differ
    measured: datetime = dispatch["created_at"] + timedelta(milliseconds=job["queued_ms"])
    latest: datetime = job["finished_at"] - timedelta(milliseconds=job["processing_ms"])
    return min(measured, latest)


def _is_late(facts: Facts, job: Row) -> bool:
    return facts.decision is not None and bool(job["strategy_id"] in facts.decision["missing"])


def _ending(job: Row) -> str:
    if job["status"] == OutcomeStatus.SUCCEEDED:
        edge = "" if job["edge"] is None else f", edge {job['edge']:g} %"
        return f"succeeded: {_WORDS[job['action']]} {job['strength']:g}{edge}"
    kind = None if job["status"] in _NOT_EXECUTED else job["error_class"]
    return f"{_word(job['status'])}: {_first_line(kind, job['error'])}"


def _timing(job: Row) -> str:
    again = f", attempt {job['attempt'] + 1}" if job["attempt"] else ""
    return f" (queued {job['queued_ms']:,.1f} ms, ran {job['processing_ms']:,.1f} ms on {job['worker']}{again})"


def _of_breaker(dispatch: Row, row: Row) -> Event:
    until = "" if row["open_until"] is None else f" until {row['open_until']:%H:%M:%S}"
    detail = f"{_word(row['state'])}{until}: {row['failures']} failures in a row, {row['crashes']} crashes"
    names = ("strategy_id", "state", "failures", "trips", "crashes", "open_until")
    known = {name: row[name] for name in names}
    return _event(dispatch, row["changed_at"], "breaker", row["strategy"], detail, **known)


def _of_position(dispatch: Row, row: Row) -> Event:
    realised = f", profit {row['profit']:+,.2f}" if row["profit"] else ""
    detail = (
        f"{row['kind']} {_WORDS[row['side']]} {row['quantity']:,.6g} at {row['price']:,.6g} ({row['reason']}), "
        f"fee {row['fee']:,.2f}{realised}"
    )
    names = ("strategy_id", "kind", "reason", "side", "price", "quantity", "fee", "profit", "stop", "target")
    known = {name: row[name] for name in names}
    return _event(dispatch, row["created_at"], "position", row["strategy"], detail, **known)


def _of_action(dispatch: Row, row: Row) -> Event:
    state = row["state"] if row["reason"] is None else f"{row['state']}: {row['reason']}"
    detail = f"{row['kind']} {_WORDS[row['side']]} {row['quantity']:,.6g} at {row['price']:,.6g}, {state}"
    names = ("strategy_id", "idempotency_key", "kind", "side", "size_percent", "quantity", "price", "state", "reason")
    known = {name: row[name] for name in names} | {"action": row["id"], "sent_at": row["sent_at"]}
    return _event(dispatch, row["created_at"], "action", row["strategy"], detail, **known)


def _of_decision(facts: Facts) -> Iterator[Event]:
    decision, dispatch = facts.decision, facts.dispatch
    if decision is not None:
        names = {job["strategy_id"]: job["strategy"] for job in facts.jobs}
        missing = [names.get(number, str(number)) for number in decision["missing"]]
        without = f", without {', '.join(missing)}" if missing else ""
        detail = (
            f"{_WORDS[decision['action']]}, score {decision['score']:+.3f}, {decision['weight_heard']:.0%} of the "
            f"weight heard, closed by {decision['closed_by']}{without}"
        )
        known = {name: decision[name] for name in ("action", "score", "weight_heard", "missing", "closed_by")}
        yield _event(dispatch, decision["decided_at"], "decided", "", detail, **known)
    if dispatch["completed_at"] is not None:
        detail = f"all {dispatch['expected']} outcomes landed"
        yield _event(dispatch, dispatch["completed_at"], "completed", "", detail)


def _word(status: str) -> str:
    return status.replace("_", " ")


def _first_line(kind: str | None, error: str | None) -> str:
    line = (error or "").partition("\n")[0]
    return f"{kind}: {line}" if kind and line else kind or line or "no reason kept"
