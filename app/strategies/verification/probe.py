"""The probe: asks a strategy about windows on behalf of the checks, and turns whatever it does wrong into a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np

from app.domain.jobs import Signal
from app.errors import InvalidSignalError, JobTimeoutError
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.indicators import IndicatorCache
from app.strategies.sdk import Signals, Strategy
from app.strategies.verification.report import Check, Finding, Reason, build_finding

T = TypeVar("T")


class ForbiddenAccessError(BaseException):
    """Code under verification reached for something outside.

    Derives from BaseException so that a strategy's `except Exception` cannot swallow it.

    Args:
        reason: NETWORK, FILE or PROCESS.
        what: it did.
    """

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what


class CheckFailedError(Exception):
    """A check failed; carries what it found."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


class Watch:
    """What surrounds every evaluation; the gate's process sets limits here. This one does nothing."""

    @contextmanager
    def evaluating(self, bars: Bars) -> Iterator[None]:  # noqa: ARG002 - for those that need it
        """Surround one evaluation of a window, or of a whole series."""
        yield


class Probe:
    """Asks one strategy.

    Args:
        make: makes a fresh instance.
        window: candles of a worker's window.
        watch: surrounds every evaluation.
    """

    def __init__(self, make: Callable[[], Strategy], window: int, watch: Watch | None = None) -> None:
        self.make = make
        self.window = window
        self.strategy = make()
        self.evaluations = 0
        self._watch = watch or Watch()

    def warmup(self, bars: Bars) -> int:
        """Return the warm-up on candles of these bars' timeframe.

        Raises:
            CheckFailedError: the strategy cannot work on them.
        """
        return self.strategy.warmups.get(bars.timeframe) or self._asked(
            bars, lambda: self.strategy.candles_needed_on(bars.timeframe)
        )

    def signal(self, bars: Bars, strategy: Strategy | None = None) -> Signal:
        """Return the checked signal of a window's last candle.

        Raises:
            CheckFailedError: the strategy raised, answered nonsense or went past a limit.
        """
        asked = strategy or self.strategy
        return self._asked(bars, lambda: evaluate(asked, bars))

    def cells(self, bars: Bars) -> Signals:
        """Return what a vectorised strategy says about every candle of a series at once.

        Raises:
            CheckFailedError: as `signal`.
        """
        return self._asked(bars, lambda: self._cells(bars))

    def _cells(self, bars: Bars) -> Signals:
        answer: object = self.strategy.signals(bars, IndicatorCache(bars).select(self.strategy.declared))
        if not isinstance(answer, Signals) or not all(_fits(column, len(bars)) for column in answer.columns):
            evaluate(self.strategy, bars)  # says clearly what is wrong with it
            raise InvalidSignalError(": expected the same columns every time, found others")
        return answer

    def _asked(self, bars: Bars, ask: Callable[[], T]) -> T:
        self.evaluations += 1
        try:
            with self._watch.evaluating(bars):
                return ask()
        except JobTimeoutError as error:
            raise failed(bars, Check.COST, Reason.SLOW, "an answer within limits.timeout_ms", str(error)) from error
        except MemoryError as error:
            found = str(error) or "more asked for"
            raise failed(bars, Check.COST, Reason.MEMORY, "memory within limits.memory_mb", found) from error
        except ForbiddenAccessError as error:
            raise failed(bars, Check.ACCESS, error.reason, "no access to anything outside", error.what) from error
        except InvalidSignalError as error:
            expected, _, found = str(error).partition(": expected ")[2].rpartition(", found ")
            raise failed(bars, Check.ANSWERS, Reason.INVALID, expected, found) from error
        except BaseException as error:  # user code may raise anything
            raise failed(bars, Check.ANSWERS, Reason.RAISED, "a signal", _told(error)) from error


def failed(bars: Bars, check: Check, reason: Reason, expected: str, found: str, index: int = -1) -> CheckFailedError:
    """Build the end of a check.

    Args:
        bars: the series with the offending candle.
        check: which.
        reason: why.
        expected: what would have been right.
        found: what was seen instead.
        index: place of the candle in the bars.
    """
    return CheckFailedError(build_finding(check, reason, expected, found, **place(bars, index)))


def place(bars: Bars, index: int = -1) -> dict[str, str | None]:
    """Return symbol, timeframe and open time of a candle, for a finding."""
    opened = datetime.fromtimestamp(int(bars.open_time[index]) / 1000, UTC)
    return {"symbol": bars.symbol, "timeframe": bars.timeframe.value, "time": opened.isoformat()}


def spread(first: int, last: int, count: int) -> list[int]:
    """Return up to `count` places from `first` to `last`, both included, evenly spread."""
    if last < first:
        return []
    places = np.linspace(first, last, min(count, last - first + 1)).round()
    return [int(place) for place in np.unique(places)]


def _fits(column: object, count: int) -> bool:
    return column is None or (isinstance(column, np.ndarray) and column.shape == (count,))


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error!s:.300}"
    except Exception:
        return f"{type(error).__name__} (its message cannot be shown)"
