"""A producer that sends every message three times, and on SIGUSR1 thousands of them once more.

Run by the drill as ``python -m app.drill.repeating PATH REPEATS``; reads its settings from the environment as the
real producer does.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from threading import Event

from app.broker import Envelope, Publisher, create_celery
from app.domain.queues import QueueLimit, rooms
from app.feeds.replay import ReplayFeed
from app.producer.build import build_producer
from app.producer.hold import Hold
from app.producer.service import LOOK_EVERY_S
from app.settings import Settings, load_settings
from app.storage.engine import build_engine
from app.telemetry import configure_logging

#: How often every message is sent.
COPIES = 3


class RepeatingPublisher(Publisher):
    """Sends everything several times and remembers it."""

    sent: list[Envelope]

    def __init__(self, settings: Settings) -> None:
        super().__init__(create_celery(settings), settings.dispatch.room)
        self.sent = []

    def send(self, messages: Iterable[Sequence[Envelope]]) -> None:
        """Send all messages, each copy after all of the one before."""
        kept = list(messages)
        for _ in range(COPIES):
            super().send(kept)
        self.sent.extend(chain.from_iterable(kept))

    def publish_again(self, count: int, limits: Mapping[str, QueueLimit]) -> None:
        """Send so many of the remembered messages again, as room appears."""
        left = Hold()
        left.put(islice(cycle(self.sent), count))
        while left:
            fit = left.fitting(rooms(limits, self.waiting()), self.room)
            super().send(fit)
            left.take_out(fit)
            time.sleep(0.0 if fit else LOOK_EVERY_S)


def main(path: str, repeats: str) -> None:
    """Replay the candles, then wait for the signal and repeat."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    settings = load_settings()
    configure_logging(settings.log)
    engine = build_engine(settings.database_dsn, name="candlefleet drill producer")
    publisher = RepeatingPublisher(settings)
    build_producer(settings, engine, publisher, ReplayFeed([Path(path)])).run(Event())
    sys.stderr.write("published\n")
    signal.sigwait({signal.SIGUSR1})
    publisher.publish_again(int(repeats), settings.dispatch.limits)
    sys.stderr.write("repeated\n")
    publisher.close()
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
