"""Reading a feed beside the producer's own work: a feed that waits for its next candle holds up nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Self

from app.domain.candles import Candle

#: Seconds between two looks of a reader that waits to hand over whether it is still wanted.
_LOOK_EVERY_S = 0.1
#: Seconds a reader may take to end; a feed that still waits for the clock then is left to end with the process.
_END_WITHIN_S = 2.0


class Reader:
    """Reads batches in a thread, one ahead of what is taken: a feed whose batches are not taken waits.

    Args:
        batches: read in the thread and nowhere else.
    """

    def __init__(self, batches: Iterable[list[Candle]]) -> None:
        self._batches = batches
        self._ready: Queue[list[Candle] | BaseException | None] = Queue(maxsize=1)
        self._closed = Event()
        self._thread = Thread(target=self._read, name="feed", daemon=True)
        self.is_over = False
        """Whether everything was taken."""

    def __enter__(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what was read and not taken is dropped."""
        self._closed.set()
        self._thread.join(_END_WITHIN_S)

    def take(self, timeout_s: float) -> list[Candle] | None:
        """Return the next batch; None when there is none within so many seconds, or no more at all.

        Raises:
            FeedError: the feed as a whole cannot be read.
        """
        try:
            found = self._ready.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(found, list):
            return found
        self.is_over = True
        if found is not None:
            raise found
        return None

    def _read(self) -> None:
        end: BaseException | None = None
        try:
            for batch in self._batches:
                if not self._hand_over(batch):
                    return
        except BaseException as error:
            end = error  # raised where it can be dealt with
        self._hand_over(end)

    def _hand_over(self, item: list[Candle] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_LOOK_EVERY_S)
            except Full:
                continue
            return True
        return False


def in_batches(batches: Iterable[list[Candle]], most: Callable[[], int], *, join: bool) -> Iterator[list[Candle]]:
    """Split a feed's batches, and join them if asked to, into batches of at most `most()` candles, in order.

    No (symbol, timeframe, open_time) comes twice in one batch, so that a correction follows what it corrects.
    """
    batch: list[Candle] = []
    seen: set[tuple[str, str, datetime]] = set()
    for candles in batches:
        for candle in candles:
            key = (candle.symbol, candle.timeframe.value, candle.open_time)
            if len(batch) >= most() or key in seen:
                yield batch
                batch, seen = [], set()
            batch.append(candle)
            seen.add(key)
        if batch and not join:
            yield batch
            batch, seen = [], set()
    if batch:
        yield batch
