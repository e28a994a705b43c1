"""`candlefleet producer`: a feed's candles in, jobs out; one process."""

from __future__ import annotations

from typing import Annotated

import typer

from app.broker import Publisher, create_celery
from app.cli.output import Json, print_json, say
from app.cli.session import settings_with_logging, stop_on_signals
from app.deployment import Deployment
from app.errors import FeedError
from app.feeds.base import FeedReport
from app.producer.build import build_feed, build_producer
from app.producer.service import ProducerReport
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
