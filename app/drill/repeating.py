"""A producer that sends every message three times, and on SIGUSR1 thousands of them once more.

Run by the drill as ``python -m app.drill.repeating PATH REPEATS``; reads its settings from the environment as the
real producer does.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from threading import Event

from app.broker import Envelope, Publisher, create_celery
from app.feeds.replay import ReplayFeed
from app.producer.admission import Admission
from app.producer.build import build_producer
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

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Send all chunks, each copy after all of the one before."""
        for _ in range(COPIES):
            super().publish(envelopes)
        self.sent.extend(envelopes)

    def publish_again(self, count: int, limit: int) -> None:
        """Send so many of the remembered messages again, as room appears."""
        left = list(islice(cycle(self.sent), count))
        admission, never = Admission(self.depths, limit, self.room), Event()
        while left:
            room = admission.await_room(left, never)
            super().publish(left[:room])
            del left[:room]


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
    publisher.publish_again(int(repeats), settings.dispatch.queue_limit)
    sys.stderr.write("repeated\n")
    publisher.close()
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
