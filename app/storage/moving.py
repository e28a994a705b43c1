"""Positions on their way into a transaction: with the outcomes that they follow from, or by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection as DriverConnection

from app.domain.orders import PositionKey
from app.storage.actions import ask_risk, place_actions
from app.storage.positions import Move, read_saved, send_moves


@dataclass(slots=True)
class Moving:
    """Positions to write, and what became of that."""

    moves: Sequence[Move]
    cap_percent: float
    """Most of the portfolio that order intents may hold open."""
    was_written: bool = False
    """False: it was left out, because it does not follow from what is recorded."""
    saved: set[PositionKey] = field(default_factory=set)
    """Those whose row nobody else had written meanwhile."""

    def write(self, driver: DriverConnection[Any]) -> None:
        """Write all of it, in the caller's transaction."""
        self.was_written = True
        if not self.moves:
            return
        sent = send_moves(driver, self.moves)
        at_risk = ask_risk(driver) if any(move.intents for move in self.moves) else None
        self.saved = read_saved(sent)
        if at_risk is not None:
            place_actions(driver, self.moves, self.saved, at_risk, self.cap_percent)


def write_alone(driver: DriverConnection[Any], moving: Moving) -> None:
    """Write positions in a transaction of their own.

    Args:
        driver: psycopg connection in autocommit mode, without an open transaction.
        moving: what to write.
    """
    with driver.pipeline(), driver.transaction():
        moving.write(driver)
