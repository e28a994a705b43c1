"""How candles become jobs and outcomes: producer, nodes, broker, decisions, breakers, maintenance, positions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.domain.costs import Room
from app.domain.jobs import MOST_IN_MESSAGE, MOST_JOBS
from app.domain.queues import QueueLimit
from app.domain.strategies import Priority
from app.settings.group import Group

#: Most slots of one node: what its main process can look after in time.
MOST_SLOTS = 512


class DispatchSettings(Group):
    """How the producer turns candles into chunks and messages."""

    chunking: bool = True
    """off sends every job as a message of its own: plain Celery, slower."""
    chunk_size: Annotated[int, Field(ge=1, le=MOST_JOBS)] = MOST_JOBS
    """Most jobs in one chunk."""
    message_size: Annotated[int, Field(ge=1, le=MOST_IN_MESSAGE)] = MOST_IN_MESSAGE
    """Most jobs in one message: chunks of several candles share it."""
    chunk_budget_ms: Annotated[float, Field(gt=0)] = 10.0
    """Most estimated work in one chunk, and in one message, milliseconds: long enough that what a message costs by
    itself disappears, short enough that an urgent one seldom waits. A job of more than half of it has its own chunk."""
    trusted_after: Annotated[int, Field(ge=0)] = 3
    """Jobs of a strategy's revision that must have ended before its jobs may share a chunk; until then each travels
    alone, where it can harm no other. 0 trusts every strategy at once."""
    queue_limit: Annotated[int, Field(ge=1)] = 100
    """Most messages waiting in one queue; what is over is held by the producer."""
    queue_limit_high: Annotated[int, Field(ge=1)] | None = None
    """The same for high alone; None is `queue_limit`."""
    queue_limit_normal: Annotated[int, Field(ge=1)] | None = None
    """The same for normal alone; None is `queue_limit`."""
    queue_limit_low: Annotated[int, Field(ge=1)] | None = None
    """The same for low alone; None is `queue_limit`."""
    queue_age_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds since the dispatch of a queue's oldest message above which the queue takes no more, however few wait.
    0 is off: the number of messages bounds a queue of light jobs well, and how old slow ones may get is for whoever
    knows them to say."""
    queue_age_high_s: Annotated[float, Field(ge=0)] | None = None
    """The same for high alone; None is `queue_age_s`."""
    queue_age_normal_s: Annotated[float, Field(ge=0)] | None = None
    """The same for normal alone; None is `queue_age_s`."""
    queue_age_low_s: Annotated[float, Field(ge=0)] | None = None
    """The same for low alone; None is `queue_age_s`."""
    held_chunks: Annotated[int, Field(ge=1)] = 10_000
    """Most chunks that a producer holds in memory; what is over is left to maintenance. 10,000 are more than 500
    symbols with 500 strategies each make of one close, and take about 30 MB (3 kB each, 16 kB with 256 jobs)."""
    ahead_chunks: Annotated[int, Field(ge=1)] = 500
    """Chunks held from which on a feed that can wait is told to. Far fewer than `held_chunks`: it loses nothing by
    waiting, and what it would hand on grows old towards its deadline. 500 are two or three batches of candles."""
    batch_candles: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Most candles written in one transaction and published in one pipeline."""
    deadline_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds from dispatch until its decision is due."""
    lifetime_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds from dispatch after which a job that was not executed is out of date."""
    default_priority: Priority = Priority.NORMAL
    """Priority of a strategy whose definition names none."""

    @property
    def jobs_in_chunk(self) -> int:
        """Most jobs that travel together: `chunk_size`, or 1 with chunking off."""
        return self.chunk_size if self.chunking else 1

    @property
    def room(self) -> Room:
        """How much a message may hold, for a fleet of unknown size."""
        return Room(self.message_size if self.chunking else 1, self.chunk_budget_ms)

    @property
    def limits(self) -> dict[str, QueueLimit]:
        """Up to where each queue is filled."""
        return {priority.value: self._limit(priority.value) for priority in Priority}

    def _limit(self, queue: str) -> QueueLimit:
        own: int | None = getattr(self, f"queue_limit_{queue}")
        own_age_s: float | None = getattr(self, f"queue_age_{queue}_s")
        age_s = self.queue_age_s if own_age_s is None else own_age_s
        return QueueLimit(own or self.queue_limit, age_s or None)


class WorkerSettings(Group):
    """How a worker node executes chunks."""

    enabled: bool = True
    """False: `candlefleet worker` refuses to start (a node taken out of the fleet)."""
    slots: Annotated[int, Field(ge=0, le=MOST_SLOTS)] = 0
    """Pool processes of a node; 0 means one per core."""
    prefetch: Annotated[int, Field(ge=1, le=64)] = 2
    """Messages held per slot while messages are quick: above 1, so that a slot does not wait for Redis between two.
    While they take more than 50 ms on average, only those are fetched that a slot is free for."""
    window: Annotated[int, Field(ge=32, le=100_000)] = 512
    """Candles every strategy sees. One length for all: shared indicators, and results that do not
    depend on which strategies share a chunk."""
    cached_series: Annotated[int, Field(ge=1)] = 512
    """Most (symbol, timeframe) windows kept per slot, least recently used dropped first.
    512 windows of 512 candles take about 25 MB."""
    cached_strategies: Annotated[int, Field(ge=1)] = 2000
    """Most strategies (each revision counts) kept per slot, least recently used closed and dropped first. A built-in
    takes a few KB; lower it where strategies hold much."""
    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] = 5000
    """Soft limit of one job when its definition states none."""
    hard_grace_s: Annotated[float, Field(gt=0)] = 5.0
    """Seconds a message may run past the longest soft limit of its jobs before its slot is killed."""
    retry_base_s: Annotated[float, Field(gt=0)] = 0.5
    """Delay before the first retry; doubles with every attempt."""
    retry_cap_s: Annotated[float, Field(gt=0)] = 30.0
    """Longest delay before a retry."""
    max_jobs_per_slot: Annotated[int, Field(ge=0)] = 0
    """Messages after which a slot is replaced; 0 means never."""
    slot_memory_mb: Annotated[int, Field(ge=0)] = 1024
    """Resident memory, MiB, above which a slot is replaced after its message; 0 means never. Catches strategies that
    leak from job to job. 1024 leaves a slot of 200 MiB room for what one job may take by default (512), and for what
    its allocator does not give back."""
    heartbeat_s: Annotated[float, Field(gt=0)] = 1.0
    """Seconds between two signs of life of a node; after three missed ones it counts as gone."""
    shutdown_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds a node waits for its running chunks on SIGTERM before it hands them back."""

    def retry_delay_s(self, attempt: int) -> float:
        """Return the longest delay in seconds before attempt number `attempt` (the first retry is 1)."""
        return min(self.retry_cap_s, self.retry_base_s * 2.0 ** (attempt - 1))


class BrokerSettings(Group):
    """How the queues in Redis behave; the same for every client of one broker."""

    visibility_timeout_s: Annotated[int, Field(ge=10)] = 900
    """Seconds after which Redis gives an unacknowledged message to another worker. Must exceed the
    longest retry delay plus the longest chunk."""
    restore_interval_s: Annotated[int, Field(ge=1)] = 5
    """Seconds between two looks for unacknowledged messages."""
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]*$")] = ""
    """Put before every key, so that several deployments can share one Redis."""
    queue_weights: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (
        8,
        3,
        1,
    )
    """Turns of high, normal and low in a full cycle: low still progresses under a flood of high."""


class DecisionSettings(Group):
    """How outcomes become a decision."""

    quorum: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the expected weight that must have succeeded for a decision to name an action."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Least absolute score that is a direction; below it the decision is flat."""

    grace_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds from dispatch after which a decision is made as soon as the quorum is heard."""


class BreakerSettings(Group):
    """When a strategy that keeps failing is left alone."""

    failures: Annotated[int, Field(ge=1)] = 5
    """Failures in a row that open its breaker."""
    open_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds the breaker stays open the first time; doubles with every trip."""
    cap_s: Annotated[float, Field(gt=0)] = 3600.0
    """Longest time a breaker stays open, seconds."""
    crashes: Annotated[int, Field(ge=1)] = 3
    """Slots a strategy may kill before it is quarantined."""


class MaintenanceSettings(Group):
    """How whatever is overdue is found and dealt with."""

    every_s: Annotated[float, Field(gt=0)] = 1.0
    """Seconds between two rounds of the services."""
    overdue_s: Annotated[float, Field(gt=0)] = 6.0
    """Seconds after which a published chunk that nobody holds counts as lost."""
    most_sends: Annotated[int, Field(ge=1, le=1000)] = 10
    """Times a dispatch is sent before its missing jobs are recorded as lost."""
    canary_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two canaries through each node."""
    retention_days: Annotated[float, Field(gt=0)] = 90.0
    """Days after which outcomes are dropped, a partition at a time."""


class EventSettings(Group):
    """What workers tell Flower, and anything else that listens to Celery's events, of every job."""

    rate: Annotated[float, Field(ge=0)] = 1000.0
    """Most events a second of one slot; a job that went well is three. Above it successes are sampled,
    failures and retries never. 1000 take about 1 % of a slot's time and 6 % of a core of Flower's."""
    buffer: Annotated[int, Field(ge=3)] = 1000
    """Most events that wait in a slot to be sent; what does not fit is dropped and counted, successes
    first."""
    flush_ms: Annotated[float, Field(gt=0)] = 100.0
    """Milliseconds between two messages of a slot; each holds all events since the one before."""


class RiskSettings(Group):
    """What all strategies together may risk."""

    max_open_percent: Annotated[float, Field(ge=0, le=1000)] = 20.0
    """Most of the portfolio, percent, that order intents of all strategies together may hold open. An opening that
    would pass it is recorded as refused and never sent; the strategy's own position does not know. 0 sends none."""


class ActionSettings(Group):
    """How order intents reach whoever executes them."""

    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,200}$")] = "actions"
    """Redis Stream that intents are appended to; `broker.key_prefix` is put before it."""
    stream_length: Annotated[int, Field(ge=1)] = 100_000
    """Entries that the stream keeps, approximately; Postgres keeps them all. 100,000 take about 40 MB."""
    every_s: Annotated[float, Field(gt=0)] = 0.2
    """Seconds between two looks for intents that are to be sent."""
