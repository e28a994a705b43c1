"""Trading: what the signals of a unit came to, through the same positions as live. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.domain.advancing import Bars as PriceBars
from app.domain.advancing import Cells, advance
from app.domain.positions import Event, EventKind, Reason, State
from app.domain.strategies import Trading
from app.runs.holding import Holdings, hold
from app.runs.shapes import Curve, FloatArray, IntArray, Trade, Trades
from app.runs.spans import Span


class Traded(NamedTuple):
    """What a unit's signals came to."""

    trades: Trades
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
    if rules.size_by_strength:
        events = advance(State(), prices, cells, rules).events
        trades, steps = Trades.build(build_trades(events)), steps_of_events(prices, events)
    else:
        holdings = hold(prices, cells, rules)
        trades, steps = _trades_of(holdings, prices), _steps_of(holdings, len(prices.open))
    duration_ms = round(bars.timeframe.duration.total_seconds() * 1000)
    return Traded(trades, build_curve(prices, steps, rules.capital, duration_ms))


class Steps(NamedTuple):
    """How what is held changes, in the order of time, each column (k,); of several at one candle the last counts."""

    place: IntArray
    """Of the candle after which it holds, until the next step."""
    held: FloatArray
    """Quantity, below 0 short."""
    realised: FloatArray
    """Profit after fees, quote currency."""
    entry_fee: FloatArray
    """Of what is held."""
    entry_price: FloatArray


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


def build_curve(prices: PriceBars, steps: Steps, capital: float, duration_ms: int) -> Curve:
    """Build the curve: what was realised after fees, and what is held marked at each close.

    The fee of an entry counts from the entry on, that of an exit when it is paid.

    Args:
        prices: candles of the range.
        steps: of the position over these.
        capital: quote currency.
        duration_ms: of a candle.
    """
    edges = np.concatenate(([0], steps.place, [len(prices.opened_ms)]))
    held, realised, entry_fee, entry_price = (np.repeat(np.append(0.0, column), np.diff(edges)) for column in steps[1:])
    equity = capital + realised - entry_fee + held * (prices.close - entry_price)
    with np.errstate(divide="ignore", invalid="ignore"):
        exposure = np.where(held == 0, 0.0, held * prices.close / equity)
    return Curve(prices.opened_ms + duration_ms, equity, exposure, prices.close)


def steps_of_events(prices: PriceBars, events: Sequence[Event]) -> Steps:
    """Return a step for each event.

    Args:
        prices: candles of the range.
        events: of the position over these, in order.
    """
    places = np.searchsorted(prices.opened_ms, [event.opened_ms for event in events])
    realised, rows, holding = 0.0, list[tuple[float, ...]](), None
    for event in events:
        if event.kind is EventKind.OPENED:
            holding = _Holding.open(event)
        elif event.kind is EventKind.CLOSED:
            holding, realised = None, realised + event.profit
        elif holding is not None and event.reason is Reason.STRENGTH:
            holding.reduce(event)
            realised += event.profit
        rows.append(_state(holding, realised))
    return Steps(places, *np.array(rows, np.float64).reshape(-1, 4).T)


def _state(holding: _Holding | None, realised: float) -> tuple[float, ...]:
    if holding is None:
        return 0.0, realised, 0.0, 0.0
    opened = holding.opened
    return holding.quantity * opened.side, realised, holding.entry_fee, opened.price


def _steps_of(holdings: Holdings, count: int) -> Steps:
    """Return two steps for each position, its entry and its end; one that stays ends after the last candle."""
    realised = np.cumsum(np.where(holdings.end < count, holdings.profit, 0.0))
    before = np.concatenate(([0.0], realised[:-1])) if len(realised) else realised
    nothing = np.zeros(len(realised))
    pairs = (
        (holdings.begin, holdings.end),
        (holdings.quantity * holdings.side, nothing),
        (before, realised),
        (holdings.entry_fee, nothing),
        (holdings.entry_price, nothing),
    )
    return Steps(*(np.column_stack(pair).ravel() for pair in pairs))


def _trades_of(holdings: Holdings, prices: PriceBars) -> Trades:
    is_closed = holdings.end < len(prices.open)
    columns: list[npt.NDArray[Any]] = [column[is_closed] for column in holdings]
    closed = Holdings(*columns)
    return Trades(
        prices.opened_ms[closed.begin],
        prices.opened_ms[closed.end],
        closed.side,
        closed.quantity,
        closed.entry_price,
        closed.exit_price,
        closed.entry_fee + closed.exit_fee,
        closed.profit,
        closed.reason,
    )
