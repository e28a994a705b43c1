"""Settings: frozen groups, validated together, read from the environment once at an entry point.

`load_settings()` is the only reader of the environment in the project. Everything else is handed the
group it needs. An environment variable that starts with CANDLEFLEET_ and means nothing is refused.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from app.domain.breakers import BreakerRules
from app.domain.costs import Room
from app.domain.decisions import DecisionRules
from app.domain.jobs import MOST_IN_MESSAGE, MOST_JOBS
from app.domain.queues import QueueLimit
from app.domain.selection import SelectionRules
from app.domain.strategies import Priority
from app.errors import ConfigurationError

PREFIX = "CANDLEFLEET_"
DELIMITER = "__"

#: Most slots of one node: what its main process can look after in time.
MOST_SLOTS = 512

#: Signs of life a node may miss before it counts as gone.
MISSED_BEATS = 3

#: A token that a header can carry (b64token of RFC 6750) and nobody guesses.
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")


class Group(BaseModel):
    """Base of the nested groups: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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


class BatchSettings(Group, SelectionRules):
    """Batch runs, and what is selected from what they find; a run may override each for itself."""

    enabled: bool = True
    """False: no run is started."""
    max_concurrency: Annotated[int, Field(ge=1, le=1000)] = 50
    """Most units of one run that are executed at a time."""
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Most units that a slot claims at once."""
    timeout_ms: Annotated[int, Field(ge=1)] = 5000
    """Soft limit of one unit."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts after the first one of a unit failed."""
    max_age_candles: Annotated[int, Field(ge=0)] = 2
    """Most candles that may have closed after the latest one of a market that is evaluated; an older one is stale."""

    @property
    def selection(self) -> SelectionRules:
        """What is selected and how large."""
        return SelectionRules(**self.model_dump(include=set(SelectionRules.model_fields)))


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


class RunSettings(Group):
    """Batch runs."""

    most_units: Annotated[int, Field(ge=1)] = 100_000
    """Most units of one run: strategies and params times symbols. 100,000 take 2.5 GB of Postgres, and 150 bytes for
    each of their trades; a grid of more is usually a mistake."""
    cached_candles: Annotated[int, Field(ge=1)] = 500_000
    """Candles of runs that a slot keeps between units, least recently used series dropped first; 500,000 take 24 MB."""
    cached_mb: Annotated[int, Field(ge=1)] = 32
    """Indicators of the newest series that a slot keeps between units, MB: the units of a grid share them."""
    details_days: Annotated[float, Field(ge=0)] = 90.0
    """Days after its end for which a run keeps its details: signals, trades, curves, answers; 0 keeps them for good.
    Its figures stay in any case. As long as outcomes: then there is nothing left to compare signals with."""
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    """How much lower the priority of the slots of a node is that serves only runs: live slots get the cores at once."""


class FlowerSettings(Group):
    """The Flower page."""

    host: str = "127.0.0.1"
    """Address to listen on; only this machine by default."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 5555
    """Port to listen on; 0 takes a free one."""
    user: str = "operator"
    """Who may look."""
    password: SecretStr | None = None
    """None: one is generated, printed once and kept under the data folder."""
    max_tasks: Annotated[int, Field(ge=1)] = 20_000
    """Tasks kept in memory; Flower 2.2 takes about 38 MiB per 10,000."""


class Role(StrEnum):
    """What whoever has a token of the API may do."""

    READ = "read"
    OPERATE = "operate"

    def may(self, wanted: Role) -> bool:
        """Tell whether this role includes another: operating includes reading."""
        return self in (wanted, Role.OPERATE)


def _sendable(token: SecretStr) -> SecretStr:
    # what RFC 6750 lets a client send; the message must not show the value
    if not TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError("expected 16 or more letters, digits and -._~+/= : 'openssl rand -hex 24' makes one")
    return token


class ApiToken(Group):
    """Who may use the API, and for what."""

    token: Annotated[SecretStr, AfterValidator(_sendable)]
    """Sent as `Authorization: Bearer TOKEN`."""
    role: Role = Role.READ
    """read, or operate: also start and steer runs."""

    def __str__(self) -> str:
        return f"{self.role} ********"


class ApiSettings(Group):
    """The HTTP API."""

    host: str = "127.0.0.1"
    """Address to listen on; only this machine by default."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8480
    """Port to listen on; 0 takes a free one."""
    tokens: dict[str, ApiToken] = {}
    """Who may use it, as JSON: a name for the log, the token, what it may do, `{"ci": {"token": "...", "role":
    "read"}}`; `operate` includes `read`. Without any the API does not start."""
    open: bool = False
    """True: without tokens, everybody on this machine may operate; only on a loopback address."""
    streams: Annotated[int, Field(ge=1)] = 200
    """Most streams of events at a time; one more is answered with 503."""

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if len({each.token.get_secret_value() for each in self.tokens.values()}) < len(self.tokens):
            raise ValueError("expected a token of its own for every name, found the same one twice")
        return self


class LogSettings(Group):
    """What is logged and how."""

    level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    """debug, info, warning or error."""
    json_lines: bool = False
    """True: one JSON object a line, for log collectors; False: readable lines."""


class StrategySettings(Group):
    """Which strategy code may be loaded."""

    modules: tuple[str, ...] = ()
    """Module prefixes from which `package.module:Class` implementations may be imported."""
    file: Path | None = None
    """Definition file that `demo` and `up` load; None means the built-in set."""


class Settings(BaseSettings):
    """Everything an operator can set. Environment: CANDLEFLEET_<FIELD> or CANDLEFLEET_<GROUP>__<FIELD>."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    database_url: SecretStr | None = None
    """postgresql://user:password@host/name; None means the embedded server."""
    broker_url: SecretStr | None = None
    """redis://:password@host:6379/0; None means the embedded server."""
    home: Path = Path(".candlefleet")
    """Folder of the embedded servers' data and of generated passwords."""
    metrics: bool = True
    """Whether workers send events of every job, which is what Flower shows."""
    database_pool: Annotated[int, Field(ge=1, le=100)] = 5
    """Connections of one process that is not a slot; a slot has one."""

    dispatch: DispatchSettings = DispatchSettings()
    worker: WorkerSettings = WorkerSettings()
    broker: BrokerSettings = BrokerSettings()
    decision: DecisionSettings = DecisionSettings()
    breaker: BreakerSettings = BreakerSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    batch: BatchSettings = BatchSettings()
    events: EventSettings = EventSettings()
    risk: RiskSettings = RiskSettings()
    actions: ActionSettings = ActionSettings()
    runs: RunSettings = RunSettings()
    flower: FlowerSettings = FlowerSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()
    strategies: StrategySettings = StrategySettings()

    @property
    def deadline(self) -> timedelta:
        """Time from dispatch until its decision is due."""
        return timedelta(seconds=self.dispatch.deadline_s)

    @property
    def lifetime(self) -> timedelta:
        """Time from dispatch after which a job that was not executed is out of date."""
        return timedelta(seconds=self.dispatch.lifetime_s)

    @property
    def silence(self) -> timedelta:
        """Time without a sign of life after which a node counts as gone."""
        return timedelta(seconds=self.worker.heartbeat_s * MISSED_BEATS)

    @property
    def action_stream(self) -> str:
        """Key of the Redis Stream of order intents."""
        return self.broker.key_prefix + self.actions.stream

    @property
    def rules(self) -> DecisionRules:
        """How outcomes become a decision, and when a strategy is left alone."""
        breaker = self.breaker
        return DecisionRules(
            quorum=self.decision.quorum,
            threshold=self.decision.threshold,
            breaker=BreakerRules(
                failures=breaker.failures,
                open_for=timedelta(seconds=breaker.open_s),
                cap=timedelta(seconds=breaker.cap_s),
                crashes=breaker.crashes,
            ),
        )

    @property
    def database_dsn(self) -> str:
        """The SQLAlchemy URL of Postgres, always naming the psycopg 3 driver.

        Raises:
            ConfigurationError: no database was set and no embedded server filled it in.
        """
        url = _require(self.database_url, "DATABASE_URL")
        scheme, _, rest = url.partition("://")
        if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
            found = f"{scheme}://..." if rest else "no scheme"
            raise ConfigurationError(f"{PREFIX}DATABASE_URL: expected postgresql://..., found {found}")
        return f"postgresql+psycopg://{rest}"

    @property
    def broker_dsn(self) -> str:
        """The URL of the broker.

        Raises:
            ConfigurationError: no broker was set and no embedded server filled it in, or it is not Redis.
        """
        url = _require(self.broker_url, "BROKER_URL")
        scheme = url.partition("://")[0]
        if scheme not in ("redis", "rediss"):
            raise ConfigurationError(f"{PREFIX}BROKER_URL: expected redis://... or rediss://..., found {scheme}://...")
        return url

    @model_validator(mode="after")
    def _check_visibility(self) -> Self:
        worker = self.worker
        longest = worker.retry_cap_s + worker.timeout_ms / 1000 + worker.hard_grace_s + worker.shutdown_s
        if longest >= self.broker.visibility_timeout_s:
            raise ValueError(
                f"broker.visibility_timeout_s {self.broker.visibility_timeout_s} must exceed the longest retry delay "
                f"plus time limits ({longest:g} s), or a running job is delivered twice"
            )
        return self


def load_settings() -> Settings:
    """Read and validate the settings; called at entry points only.

    Raises:
        ConfigurationError: a value is wrong, or a CANDLEFLEET_ variable means nothing.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        raise ConfigurationError(_explain(error)) from error


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: what it is called, what it means, what holds without it."""

    name: str
    default: str
    meaning: str
    path: tuple[str, ...]


def known_variables() -> Iterator[Variable]:
    """Yield every environment variable that means something."""
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, Group):
            for inner, inner_field in group.model_fields.items():
                yield _variable(inner_field, name, inner)
        else:
            yield _variable(field, name)


def _variable(field: FieldInfo, *path: str) -> Variable:
    default = field.get_default(call_default_factory=True)
    shown = "" if default is None else str(getattr(default, "value", default))
    meaning = " ".join((field.description or "").split())
    return Variable(PREFIX + DELIMITER.join(path).upper(), shown, meaning, path)


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {variable.name for variable in known_variables()}
    unknown = sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        hints = "; ".join(f"{name}: {_closest(name, known)}" for name in unknown)
        raise ConfigurationError(f"environment variables that mean nothing: {hints}")


def _closest(name: str, known: set[str]) -> str:
    # without the prefix, which every name shares
    words = {variable.removeprefix(PREFIX): variable for variable in known}
    close = difflib.get_close_matches(name.upper().removeprefix(PREFIX), words, n=1, cutoff=0.5)
    return f"did you mean {words[close[0]]}?" if close else "unset it, or see docs/settings.md"


def _explain(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return f"settings: {error}"
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        variable = PREFIX + DELIMITER.join(str(part) for part in item["loc"]).upper()
        lines.append(f"{variable if item['loc'] else 'settings'}: {item['msg']}")
    return "; ".join(lines)


def _require(value: SecretStr | None, name: str) -> str:
    if value is None:
        raise ConfigurationError(f"{PREFIX}{name} is not set and no embedded server was started")
    return value.get_secret_value()
