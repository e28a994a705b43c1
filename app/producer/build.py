"""Composition of a producer from settings: what the command line and the demonstration both need."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from sqlalchemy import Engine

from app.broker import Publisher
from app.errors import ConfigurationError
from app.feeds.base import Feed
from app.feeds.replay import ReplayFeed
from app.producer.admission import Bounds
from app.producer.dispatch import Dispatcher
from app.producer.presence import Presence
from app.producer.service import Producer
from app.settings import Settings


def build_feed(description: str, *, speed: float | None, stop: Event) -> Feed:
    """Build a feed from its description on the command line.

    Args:
        description: ``replay:PATH``.
        speed: factor of real time; None is as fast as possible.
        stop: ends the feed.

    Raises:
        ConfigurationError: no such kind of feed, or a wrong speed.
    """
    kind, _, where = description.partition(":")
    if kind != "replay" or not where:
        raise ConfigurationError(f"--feed: expected replay:PATH, found {description!r}")
    return ReplayFeed([Path(where)], speed=speed, stop=stop)


def build_producer(settings: Settings, engine: Engine, publisher: Publisher, feed: Feed) -> Producer:
    """Build a producer.

    Args:
        settings: of the deployment.
        engine: of its Postgres.
        publisher: to its broker.
        feed: where candles come from.
    """
    dispatch = settings.dispatch
    return Producer(
        feed,
        build_dispatcher(settings, engine, feed.source),
        publisher,
        Presence(engine, settings.worker.heartbeat_s),
        limits=dispatch.limits,
        bounds=Bounds(dispatch.held_chunks, min(dispatch.ahead_chunks, dispatch.held_chunks)),
        batch_candles=dispatch.batch_candles,
    )


def build_dispatcher(settings: Settings, engine: Engine, source: str) -> Dispatcher:
    """Build what writes candles and dispatches."""
    return Dispatcher(
        engine,
        source,
        settings=settings.dispatch,
        hard_grace_s=settings.worker.hard_grace_s,
        rules=settings.rules,
        silence=settings.silence,
    )
