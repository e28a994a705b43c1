"""Trading: what the signals of a unit came to, through the same positions as live. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from app.domain.advancing import Bars as PriceBars
from app.domain.advancing import Cells, advance
from app.domain.positions import Event, EventKind, Reason, State
from app.domain.strategies import Trading
from app.runs.holding import Held, hold
from app.runs.shapes import Curve, Trade
from app.runs.spans import Span


class Traded(NamedTuple):
    """What a unit's signals came to."""

    trades: Sequence[Trade]
    curve: Curve


def trade(span: Span, cells: Cells, rules: Trading) -> Traded:
    """Turn the signals of a span into trades and a curve; a position starts flat and may stay open at the end.

    Args:
        span: the candles.
        cells: one per candle of the span's range, each of which spoke.
        rules: of the strategy.
    """
    bars, part = span.bars, slice(span.first, None)
    prices = PriceBars(bars.open_time[part], bars.open[part], bars.high[part], bars.low[part], bars.close[part])
    duration_ms = round(bars.timeframe.duration.total_seconds() * 1000)
    if rules.size_by_strength:
        events = advance(State(), prices, cells, rules).events
        trades, steps = build_trades(events), _steps_of_events(prices, events)
    else:
        held = list(hold(prices, cells, rules))
        opened_ms = prices.opened_ms.tolist()
        trades, steps = [_trade_of(each, opened_ms) for each in held if each.end is not None], _steps_of_held(held)
    return Traded(trades, build_curve(prices, steps, rules.capital, duration_ms))


class Step(NamedTuple):
    """What holds after a candle and until the next step."""

    place: int
    """Of the candle."""
    held: float
    """Quantity, below 0 short."""
    realised: float
    """Profit after fees, quote currency."""
    entry_fee: float
    """Of what is held."""
    entry_price: float


@dataclass(slots=True)
class _Holding:
    """A position on its way through its events."""

    opened: Event
    quantity: float
    """Still held."""
    entry_fee: float
    """Of what is still held."""
    fees: float
    profit: float = 0.0
    proceeds: float = 0.0
    """Value of what was given up."""

    @classmethod
    def open(cls, event: Event) -> _Holding:
        return cls(event, event.quantity, event.fee, event.fee)

    def reduce(self, event: Event) -> None:
        self.entry_fee *= 1 - event.quantity / self.quantity
        self.quantity -= event.quantity
        self.fees += event.fee
        self.profit += event.profit
        self.proceeds += event.quantity * event.price

    def close(self, event: Event) -> Trade:
        opened = self.opened
        return Trade(
            opened.opened_ms,
            event.opened_ms,
            opened.side,
            opened.quantity,
            opened.price,
            (self.proceeds + event.quantity * event.price) / opened.quantity,
            self.fees + event.fee,
            self.profit + event.profit,
            event.reason.value,
        )


def build_trades(events: Sequence[Event]) -> list[Trade]:
    """Build the closed trades out of a position's events, in order.

    The exit price of a position that was reduced on its way is the mean of its exits, by quantity.
    """
    trades: list[Trade] = []
    holding: _Holding | None = None
    for event in events:
        if event.kind is EventKind.OPENED:
            holding = _Holding.open(event)
        elif holding is not None and event.kind is EventKind.CLOSED:
            trades.append(holding.close(event))
            holding = None
        elif holding is not None and event.reason is Reason.STRENGTH:
            holding.reduce(event)
    return trades


def build_curve(prices: PriceBars, steps: Sequence[Step], capital: float, duration_ms: int) -> Curve:
    """Build the curve: what was realised after fees, and what is held marked at each close.

    The fee of an entry counts from the entry on, that of an exit when it is paid.

    Args:
        prices: candles of the range.
        steps: of the position over these, in order; of several at one candle the last counts.
        capital: quote currency.
        duration_ms: of a candle.
    """
    nothing = Step(0, 0.0, 0.0, 0.0, 0.0)
    rows = np.fromiter(chain(nothing, *steps), np.float64).reshape(-1, len(nothing))
    edges = np.array([0, *rows[1:, 0], len(prices.opened_ms)], np.int64)
    lengths = edges[1:] - edges[:-1]
    _, held, realised, entry_fee, entry_price = np.repeat(rows, lengths, axis=0).T
    equity = capital + realised - entry_fee + held * (prices.close - entry_price)
    with np.errstate(divide="ignore", invalid="ignore"):
        exposure = np.where(held == 0, 0.0, held * prices.close / equity)
    return Curve(prices.opened_ms + duration_ms, equity, exposure, prices.close)


def _steps_of_events(prices: PriceBars, events: Sequence[Event]) -> list[Step]:
    places = np.searchsorted(prices.opened_ms, [event.opened_ms for event in events]).tolist()
    realised, steps, holding = 0.0, list[Step](), None
    for place, event in zip(places, events, strict=True):
        if event.kind is EventKind.OPENED:
            holding = _Holding.open(event)
        elif event.kind is EventKind.CLOSED:
            holding, realised = None, realised + event.profit
        elif holding is not None and event.reason is Reason.STRENGTH:
            holding.reduce(event)
            realised += event.profit
        steps.append(_step(place, holding, realised))
    return steps


def _step(place: int, holding: _Holding | None, realised: float) -> Step:
    if holding is None:
        return Step(place, 0.0, realised, 0.0, 0.0)
    opened = holding.opened
    return Step(place, holding.quantity * opened.side, realised, holding.entry_fee, opened.price)


def _steps_of_held(held: Sequence[Held]) -> list[Step]:
    realised, steps = 0.0, list[Step]()
    for each in held:
        steps.append(Step(each.begin, each.quantity * each.side, realised, each.entry_fee, each.entry_price))
        if each.end is not None:
            realised += each.profit
            steps.append(Step(each.end, 0.0, realised, 0.0, 0.0))
    return steps


def _trade_of(held: Held, opened_ms: Sequence[int]) -> Trade:
    return Trade(
        opened_ms[held.begin],
        opened_ms[held.end or 0],
        held.side,
        held.quantity,
        held.entry_price,
        held.exit_price,
        held.entry_fee + held.exit_fee,
        held.profit,
        held.reason.value,
    )
