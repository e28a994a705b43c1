"""Pacing a replay: handing a batch on when its close time is due. Does not know where the candles come from."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator

from app.domain.candles import Candle
from app.errors import ConfigurationError

#: Longest single wait in seconds: a weekend at a slow speed is waited for in pieces.
_LONGEST_WAIT_S = 60.0


class Pacer:
    """Lets the market's time pass at a factor of real time.

    Args:
        speed: market seconds per second (60 replays an hour in a minute); None never waits.
        stop: once set, waiting ends at once.
        wait: waits for so many seconds or until `stop` is set.
        clock: seconds that only go forward.

    Raises:
        ConfigurationError: speed is not a finite number above zero.
    """

    def __init__(
        self,
        speed: float | None,
        stop: threading.Event,
        wait: Callable[[float], object],
        clock: Callable[[], float],
    ) -> None:
        if speed is not None and not (math.isfinite(speed) and speed > 0):
            raise ConfigurationError(f"speed: expected a factor above 0 or none (as fast as possible), found {speed}")
        self._speed = speed
        self._stop = stop
        self._wait = wait
        self._clock = clock

    def pace(self, batches: Iterable[list[Candle]]) -> Iterator[list[Candle]]:
        """Yield each batch when its close time is due, the first one at once; end when a stop is requested."""
        start = None
        for batch in batches:
            if self._speed is not None:
                close_time = batch[0].close_time
                start = start or (self._clock(), close_time)
                self._wait_until(start[0] + (close_time - start[1]).total_seconds() / self._speed)
            if self._stop.is_set():
                return
            yield batch

    def _wait_until(self, due: float) -> None:
        while not self._stop.is_set() and (left := due - self._clock()) > 0:
            self._wait(min(left, _LONGEST_WAIT_S))
