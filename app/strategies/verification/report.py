"""What the gate says about a strategy: passed, or rejected with the check, the candle, what was seen and a hint."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from app.domain.base import Value


class Check(StrEnum):
    """The checks, in the order in which they are made; the first that fails ends the verification."""

    BUILD = "build"
    COST = "cost"
    ANSWERS = "answers"
    ACCESS = "access"
    DETERMINISM = "determinism"
    PREFIX = "prefix"
    WARMUP = "warmup"
    SCALE = "scale"


class Reason(StrEnum):
    """Why a check failed, in one word."""

    SLOW = "slow"
    MEMORY = "memory"
    DIED = "died"
    UNUSABLE = "unusable"
    RAISED = "raised"
    INVALID = "invalid"
    NETWORK = "network"
    FILE = "file"
    PROCESS = "process"
    RANDOM = "random"
    CLOCK = "clock"
    STATE = "state"
    PEEKS = "peeks_ahead"
    CENTRED = "centred_window"
    NORMALISED = "global_normalisation"
    SHORT = "warmup_too_short"
    SCALED = "depends_on_scale"


_HINTS = {
    Reason.SLOW: "compute less for a candle, declare indicators instead of computing them, or raise limits.p95_ms and "
    "limits.timeout_ms",
    Reason.MEMORY: "hold less at a time, or raise limits.memory_mb",
    Reason.DIED: "nothing of a strategy may end its process: look at the native code it calls, at os._exit and signals",
    Reason.UNUSABLE: "fix its module or params until `candlefleet strategies add` can build it",
    Reason.RAISED: "handle the candle that makes it raise; a flat signal is an answer",
    Reason.INVALID: "answer action -1, 0 or 1, strength 0 to 1, and finite numbers or NaN; see docs/strategies.md",
    Reason.NETWORK: "a strategy sees candles and nothing else: bring other data in as params or candles",
    Reason.FILE: "read files when the module is imported, never while a candle is evaluated",
    Reason.PROCESS: "start no processes and send no signals while a candle is evaluated",
    Reason.RANDOM: "take randomness out, or seed it from the candle itself; sort sets before their order matters",
    Reason.CLOCK: "use the time of the candle (bars.open_time), not that of the machine",
    Reason.STATE: "keep nothing between candles, neither on self nor in the module: compute from the window",
    Reason.PEEKS: "shift the other way: a cell may use its own candle and older ones; beware of [i + 1], shift(-1), "
    "np.roll",
    Reason.CENTRED: "use a trailing window; beware of np.convolve(mode='same'), centred averages and filters that run "
    "both ways",
    Reason.NORMALISED: "normalise over a trailing window of fixed length, never by the mean, deviation, minimum or "
    "maximum of all candles at hand",
    Reason.SHORT: "declare what it computes with as indicators, set `reach` to what it reads back beyond them, or "
    "override candles_needed()",
    Reason.SCALED: "measure distances in ATRs or percent of the price, not in absolute prices",
}


class Finding(Value):
    """What is wrong with a strategy."""

    check: Check
    reason: Reason
    symbol: str | None = None
    timeframe: str | None = None
    time: str | None = None
    """Open time of the offending candle, ISO 8601 UTC; None when no candle is to blame."""
    expected: str
    found: str
    hint: str

    def __str__(self) -> str:
        where = f" at {self.symbol} {self.timeframe} {self.time}" if self.time else ""
        return f"{self.check} ({self.reason}){where}: expected {self.expected}, found {self.found}; {self.hint}"


class Figures(Value):
    """What the gate measured."""

    candles: int = 0
    evaluations: int = 0
    mean_ms: float | None = None
    """Of one evaluation of a whole window, wall clock."""
    p95_ms: float | None = None
    memory_mb: float | None = None
    """What evaluations added to the resident memory of the process at most, MiB."""
    elapsed_s: float | None = None
    """The whole verification."""


class Report(Value):
    """The gate's answer about one strategy."""

    strategy: str
    passed: bool
    finding: Finding | None = None
    figures: Figures = Field(default_factory=Figures)

    @property
    def verdict(self) -> str:
        """``passed`` or ``rejected``."""
        return "passed" if self.passed else "rejected"

    def document(self) -> dict[str, Any]:
        """Build the JSON document."""
        return {"verdict": self.verdict, **self.model_dump(mode="json", exclude={"passed"})}


def build_finding(check: Check, reason: Reason, expected: str, found: str, **place: str | None) -> Finding:
    """Build a finding with the hint of its reason.

    Args:
        check: which.
        reason: why it failed.
        expected: what would have been right.
        found: what was seen instead.
        place: symbol, timeframe and time of the candle.
    """
    return Finding(check=check, reason=reason, expected=expected, found=found, hint=_HINTS[reason], **place)
