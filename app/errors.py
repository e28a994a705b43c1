"""The whole error tree, branching on what the caller should do.

A message says what was expected, what was found and what to do next. Errors of this tree are
expected: they are logged without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

#: Allowed words that a message names.
MOST_NAMED = 20


class CandlefleetError(Exception):
    """Root of every error that Candlefleet raises on purpose."""


class ConfigurationError(CandlefleetError):
    """Settings, a definition file or the command line are wrong: stop at boot (exit code 2)."""


class SpecificationError(ConfigurationError):
    """What an operator asks for is wrong or cannot be done; nothing was started.

    Args:
        source: a file, or what else it came from.
        problems: all of them; each begins with the keys it is about and a colon.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__(f"{source}: nothing was started, because of" + "".join(f"\n  - {each}" for each in problems))
        self.problems = tuple(problems)


class UnknownRunError(ConfigurationError):
    """A run that does not exist."""


class ParamsError(ConfigurationError):
    """Params of a strategy that cannot be used.

    Args:
        problems: for each where in the params it is, key by key, and what is wrong.
    """

    def __init__(self, problems: Sequence[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(f"{'.'.join(path)}: {text}" for path, text in problems))
        self.problems = tuple(problems)


class PermanentError(CandlefleetError):
    """Trying again gives the same answer: record it, never retry."""


class FeedError(PermanentError):
    """A candle source cannot be read at all; the message names file, line and what was expected."""


class MessageError(PermanentError):
    """A message on a queue is not a chunk this version understands."""


class UnknownDispatchError(MessageError):
    """A chunk of a dispatch that the ledger does not hold."""


class UnknownStrategyError(PermanentError):
    """A strategy id, name or revision that the catalogue does not hold."""


class RejectedStrategyError(PermanentError):
    """A strategy that did not pass the gate was to get jobs."""


class WrongStateError(PermanentError):
    """What was asked for is not possible in the state that a thing is in."""


class JobExpiredError(PermanentError):
    """A job was delivered when its candle was out of date."""


class TimeframeError(ConfigurationError, PermanentError):
    """A strategy was asked about a timeframe that its higher timeframes cannot be made from."""


class TransientError(CandlefleetError):
    """Trying again later may succeed.

    Args:
        message: what was tried and what came back.
        retry_after_s: seconds to wait before the next try; None leaves it to the caller's backoff.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageUnavailableError(TransientError):
    """Postgres cannot be reached or went away in the middle of a transaction."""


class BrokerUnavailableError(TransientError):
    """Redis cannot be reached, or a publish was cut off with delivery unknown."""


class NodeUnavailableError(TransientError):
    """A worker node is gone, does not answer, or did not do what it was told."""


class StrategyError(CandlefleetError):
    """User code failed or answered nonsense; the strategy's own retry policy decides."""


class SlotDiedError(StrategyError):
    """The slot died while the job ran alone in it: a segmentation fault, out of memory, or the hard limit."""


class MemoryLimitError(StrategyError):
    """A job asked for more memory than its limit; the message says how much it had taken by then."""


class InvalidSignalError(StrategyError):
    """A strategy returned signals of the wrong type, shape, length or range."""


class UnknownIndicatorError(StrategyError):
    """A strategy looked up an indicator that it has not declared."""


class JobTimeoutError(BaseException):
    """A job ran past its soft limit.

    Derives from BaseException so that a strategy's `except Exception` cannot swallow it.
    """


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Build the tail of an error message: the closest allowed word, whatever its case, and the first MOST_NAMED.

    Args:
        word: what was found.
        allowed: every word that would have been accepted.

    Returns:
        For example ``did you mean 'period'? allowed: period, width``.
    """
    names = [str(name) for name in sorted(allowed)]
    folded = {name.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    guess = f"did you mean {folded[close[0]]!r}? " if close else ""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return f"{guess}allowed: {', '.join(names[:MOST_NAMED]) or 'nothing'}{more}"
