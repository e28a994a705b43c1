"""What the sandbox and its process tell each other: a request with candles, and one ending for each case."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from app.domain.base import Value
from app.domain.candles import Timeframe
from app.domain.jobs import Signal
from app.domain.strategies import Limits
from app.strategies.bars import Bars

_COLUMNS = ("open", "high", "low", "close", "volume")


class Mode(StrEnum):
    """What is done with each case."""

    VERIFY = "verify"
    TWIN = "twin"
    """Answer the questions of a verification, for it to compare with."""
    REPLAY = "replay"
    """Answer for the last candle of the one series."""


class Case(Value):
    """A strategy, as it can be built."""

    name: str
    implementation: str
    params: dict[str, Any]
    limits: Limits = Limits()


class TwinAnswers(Value):
    """What a twin answered."""

    plain: tuple[Signal, ...]
    shifted: tuple[tuple[Signal, ...], ...]


class Answer(Value):
    """What a strategy answered to a replay."""

    signal: Signal | None = None
    error: str | None = None
    """Why there is no signal."""


class Place(Value):
    """An evaluation."""

    symbol: str
    timeframe: str
    opened_ms: int


class Ending(Value):
    """How a case ended."""

    died: str | None = None
    """How its process ended, when it did not answer."""
    is_slow: bool = False
    """Whether it was ended because it took too long."""
    place: Place | None = None
    """The evaluation it died in."""
    answer: dict[str, Any] | None = None


class Request(Value):
    """What is to be done."""

    mode: Mode
    prefixes: tuple[str, ...]
    """Allow-listed module prefixes."""
    window: int
    """Candles of a worker's window."""
    cases: tuple[Case, ...]
    lively: int = 0
    """How many of the series, the first ones, are generated and never stand still."""
    twins: tuple[TwinAnswers | None, ...] = ()
    """Of each case; None where there is none."""


def pack(request: Request, series: Sequence[Bars]) -> bytes:
    """Pack a request."""
    names = [[bars.symbol, bars.timeframe.value] for bars in series]
    meta = json.dumps({"request": request.model_dump(mode="json"), "names": names}).encode()
    arrays: dict[str, Any] = {"meta": np.frombuffer(meta, np.uint8)}
    for place, bars in enumerate(series):
        arrays[f"times{place}"] = bars.open_time
        arrays[f"fields{place}"] = np.stack([getattr(bars, name) for name in _COLUMNS])
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def unpack(packed: bytes) -> tuple[Request, list[Bars]]:
    """Unpack a request."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        meta: Mapping[str, Any] = json.loads(arrays["meta"].tobytes())
        series = [
            Bars(symbol, Timeframe(frame), arrays[f"times{place}"], *arrays[f"fields{place}"])
            for place, (symbol, frame) in enumerate(meta["names"])
        ]
    return Request.model_validate(meta["request"]), series
