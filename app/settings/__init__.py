"""Settings: frozen groups, validated together, read from the environment once at an entry point.

`load_settings()` is the only reader of the environment in the project. Everything else is handed the
group it needs. An environment variable that starts with CANDLEFLEET_ and means nothing is refused.
"""

from app.settings.environment import known_variables, load_settings
from app.settings.group import DELIMITER, PREFIX
from app.settings.live import (
    MOST_SLOTS,
    BreakerSettings,
    BrokerSettings,
    DispatchSettings,
    EventSettings,
    MaintenanceSettings,
    WorkerSettings,
)
from app.settings.runs import BatchSettings, RunSettings
from app.settings.services import ApiSettings, ApiToken, FlowerSettings, LogSettings, Role, StrategySettings
from app.settings.whole import Settings

__all__ = [
    "DELIMITER",
    "MOST_SLOTS",
    "PREFIX",
    "ApiSettings",
    "ApiToken",
    "BatchSettings",
    "BreakerSettings",
    "BrokerSettings",
    "DispatchSettings",
    "EventSettings",
    "FlowerSettings",
    "LogSettings",
    "MaintenanceSettings",
    "Role",
    "RunSettings",
    "Settings",
    "StrategySettings",
    "WorkerSettings",
    "known_variables",
    "load_settings",
]
