"""Dispatch, Job, Chunk, Bundle, Signal and Outcome: the way of one candle, and the versioned wire contract.

A job is one strategy on one candle. Jobs of the same candle and priority are a chunk; chunks of one priority
that are sent at the same time travel as a bundle in one Celery message. Ids are deterministic, so sending
anything twice is safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, JsonValue, ValidationError

from app.domain.base import UtcDatetime, Value, explain
from app.domain.candles import Candle
from app.domain.strategies import Priority
from app.errors import MessageError

#: Version of the message body. A worker refuses a version it does not know.
WIRE_VERSION = 1

_JOB_ID = re.compile(r"(\d{1,18})\.(\d{1,9})", re.ASCII)

#: Most jobs in one chunk and in one message; what has more is not ours.
MOST_JOBS, MOST_IN_MESSAGE = 256, 1024


class OutcomeStatus(StrEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    EXPIRED = "expired"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class DispatchState(StrEnum):
    """Where the fan-out of one candle stands: open, perhaps closed (decided without all), complete (all landed)."""

    OPEN = "open"
    COMPLETE = "complete"
    CLOSED = "closed"


class Signal(Value):
    """What a succeeded strategy says about one candle."""

    action: Literal[-1, 0, 1]
    """-1 short, 0 flat, 1 long."""
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How sure, 0 to 1."""
    edge: float | None = None
    """Expected advantage in percent of price, if the strategy states one."""
    stop: Annotated[float, Field(gt=0)] | None = None
    """Protective stop, quote currency."""
    target: Annotated[float, Field(gt=0)] | None = None
    """Profit target, quote currency."""
    extras: dict[str, JsonValue] = Field(default_factory=dict)
    """Anything else the strategy wants kept with the outcome; plain JSON."""


#: What Postgres holds as integer and as bigint.
Int4 = Annotated[int, Field(ge=0, lt=2**31)]
Int8 = Annotated[int, Field(ge=0, lt=2**63)]


class JobKey(NamedTuple):
    """A job inside a chunk: which strategy, in which revision."""

    strategy_id: Int4
    revision: Int4


class Job(Value):
    """One strategy on one candle: the unit that has exactly one outcome."""

    job_id: str
    dispatch_id: int
    strategy_id: int
    strategy_revision: int
    candle: Candle
    priority: Priority = Priority.NORMAL
    created_at: UtcDatetime


class Dispatch(Value):
    """The fan-out of one candle: which strategies are expected to answer."""

    id: int
    candle: Candle
    jobs: tuple[JobKey, ...]
    weights: tuple[float, ...]
    correlation_id: str
    created_at: UtcDatetime
    deadline: UtcDatetime

    @property
    def expected(self) -> int:
        """Number of outcomes that complete the dispatch."""
        return len(self.jobs)


def job_id(dispatch_id: int, strategy_id: int) -> str:
    """Build the id of a job: the same on every redelivery, readable in Flower and logs."""
    return f"{dispatch_id}.{strategy_id}"


def read_job_id(text: str) -> tuple[int, int] | None:
    """Return the dispatch and the strategy that a job's id names; None when it is no such id."""
    match = _JOB_ID.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]))


class Chunk(Value):
    """One or more jobs of the same candle and priority: they run one after another on one window.

    `previous_open_time` is the candle before this one in its series (None for the first), and
    `rewrites` counts the corrections and late insertions the series has seen: together they let a
    worker extend its cached window without asking Postgres, and know when it must.
    """

    dispatch_id: Int8
    candle: Candle
    priority: Priority
    jobs: Annotated[tuple[JobKey, ...], Field(min_length=1, max_length=MOST_JOBS)]
    correlation_id: str
    created_at: UtcDatetime
    deadline: UtcDatetime
    """When the decision is due."""
    expires_at: UtcDatetime
    """When a job that was not executed is out of date."""
    catalogue_version: int
    """Version of the strategy catalogue the jobs were built from."""
    previous_open_time: UtcDatetime | None = None
    rewrites: int = 0
    attempt: Annotated[int, Field(ge=0, lt=2**15)] = 0
    expected: Int4 = 0
    """Jobs of the whole dispatch; 0 when the sender does not know."""

    @property
    def task_id(self) -> str:
        """The Celery id: the job's own when it travels alone, else the chunk's; the same on redelivery."""
        first = job_id(self.dispatch_id, self.jobs[0].strategy_id)
        return first if len(self.jobs) == 1 else f"{first}+{len(self.jobs) - 1}"

    def split(self) -> tuple[Chunk, ...]:
        """Return one chunk for each job: how the jobs of a dead slot are sent again."""
        return tuple(self.model_copy(update={"jobs": (key,)}) for key in self.jobs)

    def to_jobs(self) -> Iterator[Job]:
        """Unfold the chunk into its jobs, in order."""
        for key in self.jobs:
            yield Job(
                job_id=job_id(self.dispatch_id, key.strategy_id),
                dispatch_id=self.dispatch_id,
                strategy_id=key.strategy_id,
                strategy_revision=key.revision,
                candle=self.candle,
                priority=self.priority,
                created_at=self.created_at,
            )

    def to_wire(self) -> dict[str, Any]:
        """Build its part of a message body: plain JSON, times in epoch milliseconds, prices as numbers."""
        bar = self.candle
        return {
            "dispatch": self.dispatch_id,
            "symbol": bar.symbol,
            "timeframe": bar.timeframe.value,
            "open_ms": _to_ms(bar.open_time),
            "ohlcv": [bar.open, bar.high, bar.low, bar.close, bar.volume],
            "revision": bar.revision,
            "priority": self.priority.value,
            "jobs": [list(key) for key in self.jobs],
            "correlation": self.correlation_id,
            "created_us": round(self.created_at.timestamp() * 1_000_000),
            "deadline_ms": _to_ms(self.deadline),
            "expires_ms": _to_ms(self.expires_at),
            "catalogue": self.catalogue_version,
            "previous_ms": None if self.previous_open_time is None else _to_ms(self.previous_open_time),
            "rewrites": self.rewrites,
            "attempt": self.attempt,
            "of": self.expected,
        }


class Bundle(Value):
    """Chunks of one priority that travel in one Celery message."""

    chunks: Annotated[tuple[Chunk, ...], Field(min_length=1)]

    @property
    def priority(self) -> Priority:
        """Whose queue it travels on."""
        return self.chunks[0].priority

    @property
    def jobs(self) -> int:
        """Number of jobs in all chunks."""
        return sum(len(chunk.jobs) for chunk in self.chunks)

    @property
    def task_id(self) -> str:
        """The Celery id: the first chunk's, marked when others follow; the same on redelivery."""
        first = self.chunks[0].task_id
        return first if len(self.chunks) == 1 else f"{first}~{len(self.chunks) - 1}"

    def to_wire(self) -> dict[str, Any]:
        """Build the message body."""
        return {"v": WIRE_VERSION, "chunks": [chunk.to_wire() for chunk in self.chunks]}

    @classmethod
    def from_wire(cls, body: object) -> Bundle:
        """Read a message body.

        Raises:
            MessageError: not a mapping, an unknown version, too many jobs, or a field missing or wrong.
        """
        if not isinstance(body, dict):
            raise MessageError(f"expected chunks as a JSON object, found {type(body).__name__}")
        if body.get("v") != WIRE_VERSION:
            raise MessageError(
                f"expected message version {WIRE_VERSION}, found {body.get('v')!r}: upgrade the older side"
            )
        try:
            bundle = cls(chunks=tuple(_build_chunk(part) for part in body["chunks"]))
        except ValidationError as error:
            raise MessageError(f"not a version {WIRE_VERSION} message: {explain(error)}") from error
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise MessageError(f"not a version {WIRE_VERSION} message: {type(error).__name__}: {error}") from error
        if bundle.jobs > MOST_IN_MESSAGE:
            raise MessageError(f"expected at most {MOST_IN_MESSAGE} jobs in a message, found {bundle.jobs}")
        return bundle


class Outcome(NamedTuple):
    """The recorded end of a job of some dispatch. Written once; its key is (dispatch_id, strategy_id).

    A tuple, because the hot path makes one for every job.
    """

    strategy_id: int
    strategy_revision: int
    status: OutcomeStatus
    signal: Signal | None = None
    error_class: str | None = None
    error: str | None = None
    attempt: int = 0
    queued_ms: float = 0.0
    processing_ms: float = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether the job has a signal."""
        return self.status is OutcomeStatus.SUCCEEDED


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _from_ms(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _build_chunk(body: dict[str, Any]) -> Chunk:
    opened, high, low, close, volume = body["ohlcv"]
    candle = Candle(
        symbol=body["symbol"],
        timeframe=body["timeframe"],
        open_time=_from_ms(body["open_ms"]),
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        revision=body["revision"],
    )
    return Chunk(
        dispatch_id=body["dispatch"],
        candle=candle,
        priority=body["priority"],
        jobs=body["jobs"],
        correlation_id=body["correlation"],
        created_at=_from_ms(body["created_us"] / 1000),
        deadline=_from_ms(body["deadline_ms"]),
        expires_at=_from_ms(body["expires_ms"]),
        catalogue_version=body["catalogue"],
        previous_open_time=None if body["previous_ms"] is None else _from_ms(body["previous_ms"]),
        rewrites=body["rewrites"],
        attempt=body["attempt"],
        expected=body.get("of", 0),
    )
