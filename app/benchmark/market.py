"""The candles of a measurement: generated before the clock starts, so that nobody is timed for making them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from queue import SimpleQueue

from app.domain.candles import Candle, Timeframe
from app.feeds.base import FeedReport
from app.feeds.generated import GeneratedFeed

TIMEFRAME = Timeframe.M1
START = datetime(2024, 1, 1, tzinfo=UTC)
#: Closes of one market: more than any run asks for.
CLOSES = 5_000_000

#: Candles of one close time.
Close = list[Candle]


class Market:
    """Goes on from measurement to measurement, as a market does: windows stay warm.

    Args:
        symbols: what closes together.
        seed: the same seed, the same candles.
    """

    def __init__(self, symbols: Sequence[str], seed: int) -> None:
        self._closes = GeneratedFeed(symbols, TIMEFRAME, CLOSES, seed, START).batches()
        self._rest: Close = []

    def take(self, candles: int) -> list[Close]:
        """Return the next candles, those of one close together; the last close may be cut, and goes on next time."""
        taken = []
        while candles > 0:
            close = self._rest or next(self._closes)
            taken.append(close[:candles])
            self._rest = close[candles:]
            candles -= len(taken[-1])
        return taken


class HandedFeed:
    """A feed that yields what it is handed, until it is ended."""

    def __init__(self) -> None:
        self._report = FeedReport()
        self._handed: SimpleQueue[Close | None] = SimpleQueue()

    @property
    def source(self) -> str:
        """``bench``."""
        return "bench"

    @property
    def report(self) -> FeedReport:
        """What was handed on."""
        return self._report

    @property
    def can_wait(self) -> bool:
        """False, as from an exchange: candles that close together are dispatched at once, not with the next close."""
        return False

    def hand(self, closes: Sequence[Close]) -> None:
        """Hand closes to whoever iterates."""
        for close in closes:
            self._handed.put(close)

    def end(self) -> None:
        """End the iteration."""
        self._handed.put(None)

    def batches(self) -> Iterator[Close]:
        """Yield closes as they are handed."""
        while (close := self._handed.get()) is not None:
            self._report.accepted += len(close)
            yield close
