"""The positions that one slot brings forward: every candle once and in order, whoever executed its jobs.

What a position is follows from the ledger alone: the candles, and the outcomes that are recorded of them. A slot
remembers how far it came. The usual job is that of the next candle: its signal is at hand, and what follows from it is
written with its outcome. When other slots took candles in between, what was recorded of them is read. A candle whose
outcome is still to come ends it: whoever records that outcome looks, after its commit, whether later ones wait for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import structlog
from sqlalchemy import Connection

from app.domain.jobs import Chunk, Outcome
from app.domain.orders import PositionKey
from app.domain.positions import Bar, Event, View, step
from app.domain.strategies import Trading
from app.storage.engine import driver_of
from app.storage.landing import Landing
from app.storage.moving import Moving, write_alone
from app.storage.positions import (
    MOST_CANDLES,
    Checkpoint,
    Move,
    Past,
    Told,
    find_followed,
    load_checkpoints,
    load_history,
)
from workers.runtime.strategies import Runtime
from workers.runtime.windows import to_ms

log = structlog.get_logger()

T = TypeVar("T")
SeriesKey = tuple[str, str]

#: Candles after which a position is written although nothing happened to it: a slot that others were ahead of reads
#: what came after. Writing costs as much as reading five candles.
SAVE_AFTER = 32

#: Times that positions are brought forward for one message: others may be at it, and a long past comes in pages. The
#: next message goes on.
MOST_ROUNDS = 8


class Within(Protocol):
    """Does something on the slot's connection."""

    def __call__(self, action: Callable[[Connection], T], /) -> T:
        """Do it."""
        ...


class Work(Protocol):
    """A chunk that ran, or a part of one, and is to be recorded."""

    @property
    def chunk(self) -> Chunk:
        """Whose jobs ran."""
        ...

    @property
    def runtimes(self) -> Sequence[Runtime]:
        """Of its jobs, in order."""
        ...

    @property
    def landing(self) -> Landing:
        """What is recorded."""
        ...


class Own(NamedTuple):
    """What a job of this message said."""

    previous_ms: int | None
    """Open time of the candle before, epoch ms; None when that is not known."""
    past: Past


@dataclass(slots=True)
class Message:
    """The jobs of a message whose signals become positions."""

    rules: dict[PositionKey, Trading] = field(default_factory=dict)
    own: dict[PositionKey, list[Own]] = field(default_factory=dict)
    """What ended, oldest candle first."""
    newest_ms: dict[SeriesKey, int] = field(default_factory=dict)
    """Open time of the newest candle by series."""


class Advance:
    """A position while candles are applied to it."""

    def __init__(self, checkpoint: Checkpoint, rules: Trading) -> None:
        self.checkpoint = checkpoint
        self.has_more = False
        """Whether the ledger was read in part only."""
        self.events: list[Told] = []
        self.intents: list[Told] = []
        self._rules = rules
        self._correlation_id = ""

    def apply(self, past: Past) -> None:
        """Apply the next candle."""
        before = self.checkpoint
        state, events, intents = step(before.state, past.bar, past.view, self._rules)
        revision = past.revision or before.revision
        self._correlation_id = past.correlation_id or self._correlation_id
        self.checkpoint = Checkpoint(state, past.bar.opened_ms, before.version, revision, before.unsaved + 1)
        if events:
            self.events += [Told(event, revision, past.correlation_id) for event in events]
        if intents:
            self.intents += [Told(intent, revision, past.correlation_id) for intent in intents]

    def move(self, key: PositionKey) -> Move | None:
        """Return what is to be written; None when it can wait."""
        if not self.events and not self.intents and self.checkpoint.unsaved < SAVE_AFTER:
            return None
        return Move(key, self.checkpoint, self._correlation_id, self.events, self.intents)


class PositionKeeper:
    """Brings positions forward, for one slot.

    Args:
        within: does something on the slot's connection.
        cap_percent: most of the portfolio that order intents may hold open.
        most_series: series whose positions are remembered, least recently used dropped first.
    """

    def __init__(self, within: Within, cap_percent: float, most_series: int) -> None:
        self._within = within
        self._cap_percent = cap_percent
        self._most = most_series
        self._known: OrderedDict[SeriesKey, dict[int, Checkpoint]] = OrderedDict()

    def land(self, work: Sequence[Work], record: Callable[[Moving | None], T]) -> T:
        """Have outcomes recorded, with the positions that follow from them.

        Args:
            work: what ran.
            record: records it, with positions; returns what the caller wants.

        Raises:
            StorageUnavailableError: Postgres is away; do all of it again.
        """
        message = read_message(work)
        if not message.rules:
            return record(None)
        advances = self._advance(message)
        moving = Moving(_moves(advances), self._cap_percent)
        answer = record(moving)
        self._catch_up(message, self._keep(message, advances, moving))
        return answer

    def look(self, chunk: Chunk, runtimes: Sequence[Runtime]) -> None:
        """Bring positions forward for a chunk whose outcomes are recorded: perhaps by a slot that has died since.

        Raises:
            StorageUnavailableError: as `land`.
        """
        message = Message(newest_ms={_series(chunk): to_ms(chunk.candle.open_time)})
        rules = _rules(chunk, runtimes)
        message.rules = {PositionKey(number, *_series(chunk)): trading for number, trading in rules.items()}
        self._catch_up(message, message.rules)

    def _advance(self, message: Message) -> dict[PositionKey, Advance]:
        """Apply what the message says, as far as nothing is missing before it."""
        advances, behind = {}, {}
        for key, own in message.own.items():
            checkpoint = self._recall(key)
            if checkpoint is None:
                behind[key] = own[0].past.bar.opened_ms
                continue
            advances[key] = advance = Advance(checkpoint, message.rules[key])
            if not _apply_own(advance, own):
                behind[key] = own[0].past.bar.opened_ms
        return {**advances, **self._from_ledger(message, behind)} if behind else advances

    def _from_ledger(self, message: Message, until_ms: Mapping[PositionKey, int]) -> dict[PositionKey, Advance]:
        """Apply what the ledger says of positions, then what the message says."""
        rows = self._within(lambda connection: load_checkpoints(driver_of(connection), until_ms))
        begun = {key: self._newer(key, row) for key, row in rows.items()}
        after_ms = {key: checkpoint.applied_ms for key, checkpoint in begun.items()}
        history = self._within(lambda connection: load_history(driver_of(connection), after_ms))
        advances = {}
        for key, checkpoint in begun.items():
            advances[key] = advance = Advance(checkpoint, message.rules[key])
            _apply_all(advance, history[key], message.own.get(key, ()))
            full = len(history[key]) == MOST_CANDLES
            advance.has_more = full and advance.checkpoint.applied_ms == history[key][-1].bar.opened_ms
        return advances

    def _keep(self, message: Message, advances: Mapping[PositionKey, Advance], moving: Moving) -> set[PositionKey]:
        """Remember what is true now; return the positions that are to be looked at again."""
        if not moving.was_written:
            # some of it was recorded before, perhaps otherwise: what counts is in the ledger
            self._forget(advances)
            return set(message.rules)
        lost = self._remember(advances, moving)
        behind = {key for key, each in advances.items() if not _is_at_end(each, message.own[key])}
        return lost | behind | self._followed(message)

    def _followed(self, message: Message) -> set[PositionKey]:
        """Return the positions in series of which others have recorded later candles."""
        groups: dict[tuple[str, str, int], list[int]] = {}
        for key in message.rules:
            place = (key.symbol, key.timeframe, message.newest_ms[key.symbol, key.timeframe])
            groups.setdefault(place, []).append(key.strategy_id)
        series = self._within(lambda connection: find_followed(driver_of(connection), groups))
        return {key for key in message.rules if (key.symbol, key.timeframe) in series} if series else set()

    def _catch_up(self, message: Message, keys: Iterable[PositionKey]) -> None:
        """Bring positions forward by what is recorded, in transactions of their own."""
        message.own = {}
        left = set(keys)
        for _ in range(MOST_ROUNDS):
            if not left:
                return
            until_ms = {key: message.newest_ms[key.symbol, key.timeframe] for key in left}
            left = self._write(self._from_ledger(message, until_ms))
        log.info("positions are left to the next message", positions=len(left))

    def _write(self, advances: Mapping[PositionKey, Advance]) -> set[PositionKey]:
        """Write what came of it; return the positions that are to be brought forward once more."""
        moving = Moving(_moves(advances), self._cap_percent)
        if moving.moves:
            self._within(lambda connection: write_alone(driver_of(connection), moving))
        return self._remember(advances, moving) | {key for key, each in advances.items() if each.has_more}

    def _recall(self, key: PositionKey) -> Checkpoint | None:
        series = self._known.get((key.symbol, key.timeframe))
        return None if series is None else series.get(key.strategy_id)

    def _newer(self, key: PositionKey, row: Checkpoint) -> Checkpoint:
        """Return what is remembered if it follows from this row, or the row."""
        known = self._recall(key)
        return known if known is not None and known.version == row.version else row

    def _remember(self, advances: Mapping[PositionKey, Advance], moving: Moving) -> set[PositionKey]:
        """Remember how far positions came; return those that somebody else has written meanwhile."""
        lost = {move.key for move in moving.moves} - moving.saved
        self._forget(lost)
        for move in moving.moves:
            if move.key in moving.saved:
                _log(move)
        for key in advances.keys() - lost:
            known = advances[key].checkpoint
            if key in moving.saved:
                known = known._replace(version=known.version + 1, unsaved=0)
            series = self._known.setdefault((key.symbol, key.timeframe), {})
            series[key.strategy_id] = known
        for place in {(key.symbol, key.timeframe) for key in advances} & self._known.keys():
            self._known.move_to_end(place)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return lost

    def _forget(self, keys: Iterable[PositionKey]) -> None:
        for key in keys:
            self._known.get((key.symbol, key.timeframe), {}).pop(key.strategy_id, None)


def read_message(work: Sequence[Work]) -> Message:
    """Gather what the jobs of trading strategies said.

    What a corrected candle's jobs say is left out: the first dispatch of a candle counts, and the ledger has it.
    """
    message = Message()
    for each in work:
        if rules := _rules(each.chunk, each.runtimes):
            _read_chunk(message, each, rules)
    for own in message.own.values():
        own.sort(key=_opened)
    return message


def _rules(chunk: Chunk, runtimes: Sequence[Runtime]) -> dict[int, Trading]:
    """Return how the trading strategies of a chunk trade."""
    found = zip(chunk.jobs, runtimes, strict=True)
    return {job.strategy_id: r.trading for job, r in found if r.trading is not None and r.trading.enabled}


def _series(chunk: Chunk) -> SeriesKey:
    return chunk.candle.symbol, chunk.candle.timeframe.value


def _read_chunk(message: Message, work: Work, rules: Mapping[int, Trading]) -> None:
    chunk, candle, series = work.chunk, work.chunk.candle, _series(work.chunk)
    opened_ms = to_ms(candle.open_time)
    message.newest_ms[series] = max(opened_ms, message.newest_ms.get(series, opened_ms))
    bar = Bar(opened_ms, candle.open, candle.high, candle.low, candle.close)
    previous_ms = None if chunk.previous_open_time is None else to_ms(chunk.previous_open_time)
    for outcome in work.landing.outcomes:
        trading = rules.get(outcome.strategy_id)
        if trading is not None:
            key = PositionKey(outcome.strategy_id, *series)
            message.rules[key] = trading
            if candle.revision == 0:
                message.own.setdefault(key, []).append(Own(previous_ms, _own(bar, chunk, outcome)))


def _own(bar: Bar, chunk: Chunk, outcome: Outcome) -> Past:
    view = None if outcome.signal is None else View.of(outcome.signal)
    return Past(bar, chunk.correlation_id, True, view, outcome.strategy_revision)


def _moves(advances: Mapping[PositionKey, Advance]) -> list[Move]:
    """Return what is to be written, in the order in which rows are locked."""
    moves = [move for key, each in advances.items() if (move := each.move(key)) is not None]
    return sorted(moves, key=lambda move: move.key)


def _log(move: Move) -> None:
    for told in (*move.events, *move.intents):
        what, known = told.what, move.key._asdict()
        word = f"position {what.kind}" if isinstance(what, Event) else f"{what.kind} intended"
        log.debug(word, reason=what.reason.value, price=what.price, correlation=told.correlation_id, **known)


def _opened(own: Own) -> int:
    return own.past.bar.opened_ms


def _apply_own(advance: Advance, own: Sequence[Own]) -> bool:
    """Apply candles of the message that follow without a gap; tell whether these were all."""
    for each in own:
        applied_ms = advance.checkpoint.applied_ms
        if each.past.bar.opened_ms > applied_ms:
            if each.previous_ms != applied_ms:
                return False
            advance.apply(each.past)
    return True


def _apply_all(advance: Advance, history: Sequence[Past], own: Sequence[Own]) -> None:
    """Apply candles of the ledger up to the first that is not known; the message may know it, and others after it."""
    said = {_opened(each): each.past for each in own}
    for past in history:
        if past.bar.opened_ms <= advance.checkpoint.applied_ms:
            continue
        known = past if past.is_known else said.get(past.bar.opened_ms)
        if known is None:
            return
        advance.apply(known)
    _apply_own(advance, own)


def _is_at_end(advance: Advance, own: Sequence[Own]) -> bool:
    return advance.checkpoint.applied_ms >= _opened(own[-1])
