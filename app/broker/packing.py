"""Which chunks share a message: neighbours of one priority, as much work as there is room for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.domain.costs import LEAST_WORK_MS, Room
from app.domain.jobs import Chunk
from app.domain.strategies import Priority

#: How many times the work of a message a message of slow chunks may hold, when there are many of them: what a message
#: costs by itself is a fifth of a job of 10 ms. They are recorded one by one all the same.
SLOW_TOGETHER = 5

#: Priority, and whether its chunks are slow.
_Lane = tuple[Priority, bool]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A chunk ready to travel: with the queue it goes to and what operators see of it."""

    chunk: Chunk
    label: str | None
    """Shown in Flower as the task's name: the strategy's, or None for the task's own."""
    arguments: str
    """Shown in Flower as the task's arguments."""
    hard_limit_s: float
    """Seconds after which the slot that runs the chunk is killed."""
    countdown_s: float | None = None
    """Seconds to wait before the chunk may run; for retries and throttled strategies."""
    alone: bool = False
    """Whether it must not share its message: one job of it is not known to be harmless."""
    cost_ms: float = 0.0
    """Estimated time of its jobs together."""


def envelope(
    chunk: Chunk,
    *,
    names: str,
    label: str | None,
    hard_limit_s: float,
    countdown_s: float | None = None,
    alone: bool = False,
    cost_ms: float = 0.0,
) -> Envelope:
    """Build an envelope.

    Args:
        chunk: what travels.
        names: of its strategies, for people.
        label: the task's name in Flower; None leaves the task's own.
        hard_limit_s: seconds after which the slot is killed.
        countdown_s: seconds to wait before it may run.
        alone: whether it must not share its message.
        cost_ms: estimated time of its jobs together.
    """
    candle = chunk.candle
    arguments = f"{candle.symbol} {candle.timeframe} {candle.open_time:%Y-%m-%dT%H:%MZ}: {names}"
    return Envelope(chunk, label, arguments, hard_limit_s, countdown_s, alone, cost_ms)


def pack(envelopes: Sequence[Envelope], room: Room) -> Iterator[list[Envelope]]:
    """Group chunks into messages: neighbours of one priority and one attempt, as many as there is room for.

    Keeps their order. A retry travels apart from other candles' retries: it has its own time to wait.
    """
    fullest = _fullest(envelopes, room)
    group: list[Envelope] = []
    jobs, work_ms = 0, 0.0
    for envelope in envelopes:
        size, cost_ms = len(envelope.chunk.jobs), envelope.cost_ms
        is_full = jobs + size > room.jobs or work_ms + cost_ms > fullest[_lane(envelope, room)]
        if group and (is_full or not _may_share(group[-1], envelope, room)):
            yield group
            group, jobs, work_ms = [], 0, 0.0
        group.append(envelope)
        jobs, work_ms = jobs + size, work_ms + cost_ms
    if group:
        yield group


def _fullest(envelopes: Sequence[Envelope], room: Room) -> dict[_Lane, float]:
    """Return the most work in a message of each lane, ms."""
    total_ms: Counter[_Lane] = Counter()
    for envelope in envelopes:
        total_ms[_lane(envelope, room)] += envelope.cost_ms  # type: ignore[assignment]  # counts may be fractions
    most_ms = {is_slow: room.work_ms * (SLOW_TOGETHER if is_slow else 1) for is_slow in (False, True)}
    return {lane: min(most_ms[lane[1]], max(LEAST_WORK_MS, work / room.slots)) for lane, work in total_ms.items()}


def _lane(envelope: Envelope, room: Room) -> _Lane:
    # a slow chunk shares with slow ones: those that are over in no time do not wait for it
    return envelope.chunk.priority, envelope.cost_ms > room.work_ms / 2


def _may_share(before: Envelope, after: Envelope, room: Room) -> bool:
    if any(each.alone or each.countdown_s is not None for each in (before, after)):
        return False
    if _lane(before, room) != _lane(after, room) or before.chunk.attempt != after.chunk.attempt:
        return False
    # quick chunks of one dispatch were parted on purpose
    return _lane(before, room)[1] or before.chunk.dispatch_id != after.chunk.dispatch_id
