"""Composition of the maintenance services from settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from celery import Celery

from app.broker import Publisher, create_celery
from app.maintenance.base import Begin, Service
from app.maintenance.batch import BatchKeeper
from app.maintenance.closer import Closer
from app.maintenance.expirer import Expirer
from app.maintenance.fleet import Fleet
from app.maintenance.janitor import Janitor
from app.maintenance.leadership import Leadership
from app.maintenance.metrics import Findings
from app.maintenance.partitions import Partitioner, Retention
from app.maintenance.relay import Relay
from app.maintenance.republisher import Republisher
from app.maintenance.run_details import RunTrimmer
from app.maintenance.runner import Runner
from app.maintenance.stalls import StallDetector
from app.settings import Settings
from app.tickets import Tickets

#: Seconds that Redis may take to answer. Its own defaults are about 6 s to find that nobody is there and forever when
#: somebody is silent: the lead would be lost meanwhile, and what needs no Redis would not be done.
REDIS_PATIENCE_S = 1.0


def create_impatient_celery(settings: Settings) -> Celery:
    """Build the Celery application of a maintenance process: it gives up at once, the runner tries again."""
    app = create_celery(settings)
    bounds = {"max_retries": 0, "socket_connect_timeout": REDIS_PATIENCE_S, "socket_timeout": REDIS_PATIENCE_S}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **bounds}
    return app


def build_services(settings: Settings, app: Celery, publisher: Publisher) -> Callable[[Begin], Sequence[Service]]:
    """Return what makes the services of one leader.

    Args:
        settings: of the deployment.
        app: of `create_impatient_celery`, for its remote control.
        publisher: to the broker.
    """

    def build(begin: Begin) -> Sequence[Service]:
        findings, fleet, rules = Findings(), Fleet(app, publisher), settings.rules
        every_s, silence = settings.maintenance.every_s, settings.silence
        return (
            Republisher(begin, publisher, settings, findings),
            Closer(begin, rules, timedelta(seconds=settings.decision.grace_s), every_s),
            Expirer(begin, rules, silence, every_s),
            StallDetector(
                begin, fleet, findings, rules, silence, timedelta(seconds=settings.maintenance.canary_s), every_s
            ),
            Partitioner(begin),
            Retention(begin, timedelta(days=settings.maintenance.retention_days)),
            BatchKeeper(begin, Tickets(publisher, silence), every_s),
            *_build_trimmer(begin, settings.runs.details_days),
            Janitor(begin, fleet.forget, silence, every_s),
            Relay(begin, publisher, settings.action_stream, settings.actions.stream_length, settings.actions.every_s),
        )

    return build


def _build_trimmer(begin: Begin, days: float) -> tuple[Service, ...]:
    return (RunTrimmer(begin, timedelta(days=days)),) if days else ()


def build_runner(settings: Settings, app: Celery, publisher: Publisher) -> Runner:
    """Build one maintenance process."""
    return Runner(Leadership(settings.database_dsn), build_services(settings, app, publisher))
