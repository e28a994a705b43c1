"""What Celery's task events say of one job: built by the slot that ran it, for Flower and whoever else listens.

Two of Celery's fields are left out on purpose. Without `clock` a receiver counts events as they come: the logical
clock of a slot stands still at its fork, and would sort its events before all others. Without `utcoffset` a receiver
takes `timestamp` for what it is, seconds since the epoch; with it, Celery shifts it by the difference of the time
zones of sender and receiver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from app.domain.jobs import Chunk, Outcome, OutcomeStatus, Signal, job_id
from app.storage.landing import Attempt
from workers.runtime.strategies import Runtime

Event = dict[str, Any]

_WORDS = {-1: "short", 0: "flat", 1: "long"}


class Delivery(NamedTuple):
    """The message that brought chunks to a slot."""

    node: str
    """Name of the node, as its own heartbeats say it."""
    pid: int
    """Process id of its main process, as its own heartbeats say it."""
    received_at: float
    """When the main process took it, epoch seconds."""
    eta: str | None
    """When it was to be run at the earliest, ISO 8601; of a retry."""
    jobs: int
    """How many travelled together."""


@dataclass(frozen=True, slots=True)
class Told:
    """A job of which events are to be built."""

    delivery: Delivery
    chunk: Chunk
    runtimes: Sequence[Runtime]
    result: Outcome | Attempt
    is_begun: bool
    """Whether it was shown as started while it ran."""


def build_events(told: Told) -> Iterator[Event]:
    """Build the events of a job that was tried, in order: all of them, or what is left after `build_begun`."""
    delivery, chunk, result = told.delivery, told.chunk, told.result
    started_at = chunk.created_at.timestamp() + result.queued_ms / 1000
    if not told.is_begun:
        yield _received(delivery, chunk, result.strategy_id, told.runtimes)
        if has_run(result):
            yield _event("task-started", delivery, chunk, result.strategy_id, started_at)
    ended_at = started_at + result.processing_ms / 1000
    kind, fields = _ending(result)
    yield _event(kind, delivery, chunk, result.strategy_id, ended_at) | fields


def build_begun(
    delivery: Delivery, chunk: Chunk, runtimes: Sequence[Runtime], strategy_id: int, started_at: float
) -> list[Event]:
    """Build the events of a job that still runs.

    Args:
        delivery: of its chunk.
        chunk: it is one of its jobs.
        runtimes: of the chunk's jobs, in order.
        strategy_id: whose job it is.
        started_at: epoch seconds.
    """
    started = _event("task-started", delivery, chunk, strategy_id, started_at)
    return [_received(delivery, chunk, strategy_id, runtimes), started]


def has_run(result: Outcome | Attempt) -> bool:
    """Tell whether a job's code was run."""
    return result.status not in (OutcomeStatus.EXPIRED, OutcomeStatus.SKIPPED, OutcomeStatus.CANCELLED)


def _received(delivery: Delivery, chunk: Chunk, strategy_id: int, runtimes: Sequence[Runtime]) -> Event:
    candle = chunk.candle
    return _event("task-received", delivery, chunk, strategy_id, delivery.received_at) | {
        "name": _name(chunk, runtimes, strategy_id),
        "args": f"{candle.symbol} {candle.timeframe} {candle.open_time:%Y-%m-%dT%H:%MZ}",
        "kwargs": _company(chunk, delivery),
        "retries": chunk.attempt,
        "eta": delivery.eta,
        "expires": chunk.expires_at.isoformat(),
    }


def _event(kind: str, delivery: Delivery, chunk: Chunk, strategy_id: int, at: float) -> Event:
    return {
        "type": kind,
        "uuid": job_id(chunk.dispatch_id, strategy_id),
        "timestamp": at,
        "hostname": delivery.node,
        "pid": delivery.pid,
    }


def _ending(result: Outcome | Attempt) -> tuple[str, Event]:
    if isinstance(result, Attempt):
        return "task-retried", _failure(result)
    match result.status:
        case OutcomeStatus.SUCCEEDED:
            return "task-succeeded", {"result": _said(result.signal), "runtime": result.processing_ms / 1000}
        case OutcomeStatus.CANCELLED | OutcomeStatus.EXPIRED as status:
            is_expired = status is OutcomeStatus.EXPIRED
            return "task-revoked", {"terminated": False, "signum": None, "expired": is_expired} | _error(result)
        case OutcomeStatus.SKIPPED:
            return "task-rejected", {"requeue": False} | _error(result)
    return "task-failed", _failure(result)


def _failure(result: Outcome | Attempt) -> Event:
    return _error(result) | {"runtime": result.processing_ms / 1000}


def _error(result: Outcome | Attempt) -> Event:
    return {"exception": f"{result.error_class}: {result.error}" if result.error else result.error_class}


def _said(signal: Signal | None) -> str | None:
    return None if signal is None else f"{_WORDS[signal.action]} {signal.strength:g}"


def _name(chunk: Chunk, runtimes: Sequence[Runtime], strategy_id: int) -> str:
    found = (r.name for key, r in zip(chunk.jobs, runtimes, strict=True) if key.strategy_id == strategy_id)
    return next(found, f"strategy {strategy_id}")


def _company(chunk: Chunk, delivery: Delivery) -> str:
    """Say how a job travelled."""
    size = len(chunk.jobs)
    if delivery.jobs == 1:
        return "alone"
    return f"chunk of {size}" + (f" in a bundle of {delivery.jobs}" if delivery.jobs > size else "")
