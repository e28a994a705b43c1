"""`candlefleet producer`, `worker` and `flower`: the services, one process each."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from app.broker import BATCH_QUEUE, CONTROL_QUEUE, QUEUES, Publisher, create_celery
from app.cli.output import Json, print_json, say
from app.cli.session import settings_with_logging, stop_on_signals
from app.deployment import Deployment
from app.errors import ConfigurationError, FeedError, did_you_mean
from app.feeds.base import FeedReport
from app.flower import run_flower
from app.node_name import take_name
from app.processes import run_module
from app.producer.build import build_feed, build_producer
from app.producer.service import ProducerReport
from app.settings import MOST_SLOTS
from app.storage.engine import open_engine
from app.storage.migrate import require_current

Speed = Annotated[
    float | None, typer.Option(help="Factor of real time: 60 replays an hour in a minute.", show_default="no pacing")
]


def producer(
    feed: Annotated[str, typer.Option(help="Where candles come from: replay:PATH (a file or a folder).")],
    speed: Speed = None,
    as_json: Json = False,
) -> None:
    """Turn the candles of a feed into jobs, until it ends."""
    with Deployment(settings_with_logging()) as deployment, stop_on_signals() as stop:
        settings = deployment.settings
        with open_engine(settings.database_dsn, name="candlefleet producer") as engine:
            require_current(engine)
            source = build_feed(feed, speed=speed, stop=stop)
            publisher = Publisher(create_celery(settings), settings.dispatch.room)
            service = build_producer(settings, engine, publisher, source)
            report = service.run(stop)
            publisher.close()
    _print_report(report, source.report, as_json=as_json)


def worker(
    queues: Annotated[str, typer.Option(help="Queues to consume, separated by commas; batch serves runs.")] = ",".join(
        (CONTROL_QUEUE, *QUEUES)
    ),
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=MOST_SLOTS, help="Slots of this node.", show_default="one per core")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of this node; %h is the host.", show_default="worker@%h, worker-2@%h, ...")
    ] = None,
) -> None:
    """Execute jobs: one worker node."""
    settings = settings_with_logging()
    if not settings.worker.enabled:
        raise ConfigurationError("this node is taken out of the fleet: CANDLEFLEET_WORKER__ENABLED is off")
    known = (CONTROL_QUEUE, *QUEUES, BATCH_QUEUE)
    for queue in queues.split(","):
        if queue not in known:
            raise ConfigurationError(f"--queues: no queue {queue!r}: {did_you_mean(queue, known)}")
    slots = concurrency or settings.worker.slots or os.cpu_count() or 1
    own = take_name(settings, name)
    run_module("celery", ["-A", "workers.main", "--quiet", "worker", "-Q", queues, "-c", str(slots), "-n", own])


def flower(
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on.")] = None,
) -> None:
    """Show the fleet in a browser; a password is asked for."""
    with Deployment(settings_with_logging()) as deployment:
        run_flower(deployment.settings, port, say)


def _print_report(report: ProducerReport, fed: FeedReport, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "candles": report.candles,
                "repeated": report.repeated,
                "dispatches": report.dispatches,
                "chunks": report.chunks,
                "jobs": report.jobs,
                "expired": report.expired,
                "let_go": report.let_go,
                "rejected": dict(fed.rejected),
                "gaps": fed.gaps,
                "unreadable": fed.unreadable,
            }
        )
    else:
        say(
            f"{report.candles:,} candles, {report.dispatches:,} dispatches, {report.jobs:,} jobs in "
            f"{report.chunks:,} chunks; {report.repeated:,} candles were known already; {fed.gaps:,} gaps"
        )
        if report.expired:
            say(f"{report.expired:,} chunks were out of date before there was room for them", style="yellow")
        if report.let_go:
            say(f"{report.let_go:,} chunks are left to maintenance, which sends them as there is room", style="yellow")
        for reason, count in sorted(fed.rejected.items()):
            say(f"rejected {count:,} rows: {reason}")
        for message in fed.unreadable:
            say(f"unreadable: {message}", style="yellow")
    if fed.unreadable:
        raise FeedError(f"{len(fed.unreadable)} files could not be read; the rest was replayed")
