"""`candlefleet maintenance`: finds what is overdue and deals with it; of any number of processes one is active."""

from __future__ import annotations

from contextlib import suppress

from app.broker import Publisher
from app.cli.session import settings_with_logging, stop_on_signals
from app.deployment import Deployment
from app.errors import StorageUnavailableError
from app.maintenance.build import build_runner, create_impatient_celery
from app.settings import Settings
from app.storage.engine import build_engine
from app.storage.migrate import require_current


def maintenance() -> None:
    """Send lost jobs again, close what is due, recover what stands still. Run two: one takes over from the other."""
    with Deployment(settings_with_logging()) as deployment, stop_on_signals() as stop:
        _check_schema(deployment.settings)
        app = create_impatient_celery(deployment.settings)
        publisher = Publisher(app, deployment.settings.dispatch.room)
        try:
            build_runner(deployment.settings, app, publisher).run(stop)
        finally:
            publisher.close()


def _check_schema(settings: Settings) -> None:
    engine = build_engine(settings.database_dsn, name="candlefleet maintenance")
    with suppress(StorageUnavailableError):  # it may be away for a while: that is waited for
        require_current(engine)
    engine.dispose()
