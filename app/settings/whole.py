"""All groups together, and what must hold between them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.domain.breakers import BreakerRules
from app.domain.decisions import DecisionRules
from app.errors import ConfigurationError
from app.settings.group import DELIMITER, PREFIX
from app.settings.live import (
    ActionSettings,
    BreakerSettings,
    BrokerSettings,
    DecisionSettings,
    DispatchSettings,
    EventSettings,
    MaintenanceSettings,
    RiskSettings,
    WorkerSettings,
)
from app.settings.runs import BatchSettings, RunSettings
from app.settings.services import ApiSettings, FlowerSettings, LogSettings, StrategySettings

#: Signs of life a node may miss before it counts as gone.
MISSED_BEATS = 3


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


def _require(value: SecretStr | None, name: str) -> str:
    if value is None:
        raise ConfigurationError(f"{PREFIX}{name} is not set and no embedded server was started")
    return value.get_secret_value()
