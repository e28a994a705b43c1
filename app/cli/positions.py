"""`candlefleet positions`, `events` and `actions`: what strategies hold, what happened to it, what is to be done."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from threading import Event
from typing import Annotated, Any

import typer

from app.cli.filters import Correlation, Frame, Since, Symbol
from app.cli.operating import operating
from app.cli.output import Json, Limit, out, plain, print_rows
from app.cli.session import stop_on_signals
from app.domain.orders import ActionState
from app.domain.positions import EventKind
from app.operations import Operations
from app.storage import position_listings as listings

#: Seconds between two looks for new order intents.
LOOK_EVERY_S = 0.2

#: Order intents that are read at once while following.
MOST_FOLLOWED = 1000

#: What an executor is to do; a refused intent is for people.
TO_BE_DONE = (ActionState.PENDING.value, ActionState.SENT.value)

Strategy = Annotated[str | None, typer.Option(help="Only this strategy.")]

_POSITION = (
    *("strategy", "symbol", "timeframe", "side", "quantity", "entry_price", "price", "unrealised", "stop", "target"),
    *("profit", "fees", "trades"),
)
_EVENT = (
    *("id", "strategy", "symbol", "timeframe", "open_time", "kind", "reason", "side", "price", "quantity", "fee"),
    *("profit", "stop", "target"),
)
_ACTION = (
    *("id", "strategy", "symbol", "timeframe", "open_time", "kind", "side", "size_percent", "quantity", "price"),
    *("stop", "target", "state"),
)


class Side(StrEnum):
    """A side, as a word."""

    LONG = "long"
    SHORT = "short"


def positions(
    strategy: Strategy = None,
    symbol: Symbol = None,
    timeframe: Frame = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that hold something.")] = False,
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """List positions, with what is not realised yet at the newest candle."""
    with operating() as operations, operations.reading() as connection:
        rows = listings.list_positions(
            connection, limit=limit, strategy=strategy, symbol=symbol, timeframe=timeframe, only_open=only_open
        )
    print_rows(rows, _POSITION, as_json=as_json, empty="No positions.")


def events(
    strategy: Strategy = None,
    symbol: Symbol = None,
    timeframe: Frame = None,
    kind: Annotated[EventKind | None, typer.Option(help="Only this kind.")] = None,
    since: Since = None,
    correlation: Correlation = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List what happened to positions, newest first."""
    with operating() as operations, operations.reading() as connection:
        rows = listings.list_events(
            connection,
            limit=limit,
            strategy=strategy,
            symbol=symbol,
            timeframe=timeframe,
            kind=kind,
            since=since,
            correlation=correlation,
        )
    print_rows(rows, _EVENT, as_json=as_json, empty="No position events.")


def actions(
    strategy: Strategy = None,
    symbol: Symbol = None,
    state: Annotated[ActionState | None, typer.Option(help="Only this state.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for new ones, oldest first, without refused ones.")] = False,
    after: Annotated[int | None, typer.Option(min=0, help="Only those after this id, oldest first.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List order intents, newest first, or follow them; followed, --json prints one document a line."""
    wanted: dict[str, Any] = {"strategy": strategy, "symbol": symbol, "states": () if state is None else (state.value,)}
    with operating() as operations:
        if follow:
            wanted["states"] = wanted["states"] or TO_BE_DONE
            with stop_on_signals() as stop:
                _follow(operations, wanted, after, stop, _print_line if as_json else _print_sentence)
            return
        with operations.reading() as connection:
            rows = listings.list_actions(connection, limit=limit, after=after, **wanted)
    columns = (*_ACTION, "reason") if any(row["reason"] for row in rows) else _ACTION
    print_rows(rows, columns, as_json=as_json, empty="No actions.")


def _follow(
    operations: Operations,
    wanted: dict[str, Any],
    after: int | None,
    stop: Event,
    say: Callable[[dict[str, Any]], None],
) -> None:
    for row in _new_actions(operations, wanted, after, stop):
        say(row)


def _new_actions(
    operations: Operations, wanted: dict[str, Any], after: int | None, stop: Event
) -> Iterator[dict[str, Any]]:
    """Yield intents in the order of their ids, which is that in which they became visible, until told to stop."""
    while not stop.is_set():
        with operations.reading() as connection:
            if after is None:
                after = listings.load_newest_action(connection)
            rows = listings.list_actions(connection, limit=MOST_FOLLOWED, after=after, **wanted)
        yield from rows
        after = rows[-1]["id"] if rows else after
        if len(rows) < MOST_FOLLOWED:
            stop.wait(LOOK_EVERY_S)


def _print_line(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row, default=plain, allow_nan=False) + "\n")
    sys.stdout.flush()


def _print_sentence(row: dict[str, Any]) -> None:
    side = Side.LONG if row["side"] > 0 else Side.SHORT
    levels = "".join(f", {name} {row[name]:,.6g}" for name in ("stop", "target") if row[name] is not None)
    out.print(
        f"{row['id']}  {row['open_time']:%Y-%m-%d %H:%M}  {row['strategy']}  {row['symbol']} {row['timeframe']}  "
        f"{row['kind']} {side} {row['quantity']:,.6g} ({row['size_percent']:g} %) at {row['price']:,.6g}{levels}  "
        f"{row['idempotency_key']}",
        highlight=False,
        soft_wrap=True,
    )
    sys.stdout.flush()
