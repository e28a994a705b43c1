"""A verification from its row to its report: who takes it, with which candles, in which processes.

Worker slots and the operator's own command do the same here. User code runs in `app.gate`'s processes only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any, Protocol, TypeVar

import numpy as np
from sqlalchemy import Connection

from app.domain.candles import Timeframe
from app.domain.strategies import Subscription
from app.gate.sandbox import GateError, verify_all
from app.gate.wire import Case
from app.settings import Settings
from app.storage import verifications
from app.storage.candles import load_window
from app.storage.verifications import Verification
from app.strategies.bars import Bars

#: Stored series that a verification uses beside the generated markets, and candles of each.
STORED_SERIES, STORED_CANDLES = 2, 1_000

T = TypeVar("T")


class Within(Protocol):
    """Does something in a transaction, or on a connection in autocommit."""

    def __call__(self, action: Callable[[Connection], T]) -> T:
        """Do it."""
        ...


def run_verifications(within: Within, settings: Settings, ids: Sequence[str], ran_on: str, *, again: bool) -> None:
    """Take verifications over, make them, and write their reports. Those that somebody else has taken are left alone.

    Args:
        within: opens the database.
        settings: which code may be loaded, and the window of this fleet.
        ids: of them.
        ran_on: who takes them.
        again: whether those that somebody took and did not finish are taken as well.
    """
    taken = [within(partial(verifications.claim, verification_id=each, ran_on=ran_on, again=again)) for each in ids]
    mine = sorted((each for each in taken if each is not None), key=_subscription)
    for _, group in groupby(mine, key=_subscription):
        _run(within, settings, list(group))


def _run(within: Within, settings: Settings, group: Sequence[Verification]) -> None:
    stored = within(lambda connection: load_stored(connection, group[0]))
    cases = [Case(name=v.strategy, implementation=v.implementation, params=v.params, limits=v.limits) for v in group]
    answers: list[tuple[str | None, dict[str, Any]]]
    try:
        frame = _generated_timeframe(group[0])
        reports = verify_all(cases, stored, settings.strategies.modules, settings.worker.window, frame)
        answers = [(report.verdict, report.document()) for report in reports]
    except GateError as error:
        answers = [(None, {"error": str(error)})] * len(group)
    for verification, (verdict, document) in zip(group, answers, strict=True):
        within(partial(verifications.finish, verification_id=verification.id, verdict=verdict, report=document))


def load_stored(connection: Connection, verification: Verification) -> list[Bars]:
    """Load the newest candles of the liveliest series that the strategy would get, if there are any."""
    wanted = Subscription(symbols=verification.symbols, timeframes=verification.timeframes)
    known = [each for each in verifications.list_series(connection) if wanted.matches(each[0], Timeframe(each[1]))]
    newest = sorted(known, key=lambda each: each[2], reverse=True)[:STORED_SERIES]
    return [load_bars(connection, symbol, frame, until, STORED_CANDLES) for symbol, frame, until in newest]


def _generated_timeframe(verification: Verification) -> Timeframe:
    """Return the timeframe of the generated markets: one that the strategy subscribes to, so that it works on it."""
    wanted = verification.timeframes
    return Timeframe.H1 if {"*", Timeframe.H1.value} & set(wanted) else Timeframe(wanted[0])


def load_bars(connection: Connection, symbol: str, timeframe: str, until: datetime, count: int) -> Bars:
    """Load the newest candles of a series up to one, as a worker's window holds them."""
    rows = load_window(connection, symbol, timeframe, until, count)
    table = np.array(rows, dtype=object).reshape(len(rows), 6)
    fields = (np.ascontiguousarray(column, np.float64) for column in table[:, 1:].T)
    return Bars(symbol, Timeframe(timeframe), table[:, 0].astype(np.int64), *fields)


def _subscription(verification: Verification) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return verification.symbols, verification.timeframes
