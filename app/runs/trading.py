"""Trading: what the signals of a unit came to, through the same positions as live. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from app.domain.advancing import Bars as PriceBars
from app.domain.advancing import Cells, advance
from app.domain.positions import Event, EventKind, Reason, State
from app.domain.strategies import Trading
from app.runs.shapes import Curve, FloatArray, Trade
from app.runs.spans import Span


class Traded(NamedTuple):
    """What a unit's signals came to."""

    trades: Sequence[Trade]
    curve: Curve


def trade(span: Span, cells: Cells, rules: Trading) -> Traded:
    """Turn the signals of a span into trades and a curve; a position starts flat and may stay open at the end.

    Args:
        span: the candles.
        cells: one per candle of the span's range.
        rules: of the strategy.
    """
    bars, part = span.bars, slice(span.first, None)
    prices = PriceBars(bars.open_time[part], bars.open[part], bars.high[part], bars.low[part], bars.close[part])
    events = advance(State(), prices, cells, rules).events
    duration_ms = round(bars.timeframe.duration.total_seconds() * 1000)
    return Traded(build_trades(events), build_curve(prices, events, rules.capital, duration_ms))


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


def build_curve(prices: PriceBars, events: Sequence[Event], capital: float, duration_ms: int) -> Curve:
    """Build the curve: what was realised after fees, and what is held marked at each close.

    The fee of an entry counts from the entry on, that of an exit when it is paid.

    Args:
        prices: candles of the range.
        events: of the position over these.
        capital: quote currency.
        duration_ms: of a candle.
    """
    held, realised, entry_fee, entry_price = _steps(prices, events)
    equity = capital + realised - entry_fee + held * (prices.close - entry_price)
    with np.errstate(divide="ignore", invalid="ignore"):
        exposure = np.where(held == 0, 0.0, held * prices.close / equity)
    return Curve(prices.opened_ms + duration_ms, equity, exposure, prices.close)


def _steps(prices: PriceBars, events: Sequence[Event]) -> FloatArray:
    """Return, per candle, what holds after it: quantity held (below 0 short), realised profit, entry fee and price."""
    rows = [(0.0, 0.0, 0.0, 0.0)]
    realised, holding = 0.0, None
    for event in events:
        if event.kind is EventKind.OPENED:
            holding = _Holding.open(event)
        elif event.kind is EventKind.CLOSED:
            holding, realised = None, realised + event.profit
        elif holding is not None and event.reason is Reason.STRENGTH:
            holding.reduce(event)
            realised += event.profit
        rows.append(_step(holding, realised))
    places = np.searchsorted(prices.opened_ms, [event.opened_ms for event in events])
    lengths = np.diff(places, prepend=0, append=len(prices.opened_ms))
    return np.repeat(np.array(rows), lengths, axis=0).T


def _step(holding: _Holding | None, realised: float) -> tuple[float, float, float, float]:
    if holding is None:
        return 0.0, realised, 0.0, 0.0
    return holding.quantity * holding.opened.side, realised, holding.entry_fee, holding.opened.price
