"""The risk cap: which order intents are sent on, when all strategies together may hold only a part of the portfolio.

A strategy's own position does not know of it: whether an intent is sent depends on the others, what it holds does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from app.domain.positions import Intent, IntentKind

#: Rounding that may add up in a sum of shares, percent of the portfolio.
ROUNDING_PERCENT = 1e-9


class ActionState(StrEnum):
    """Where an order intent stands: to be sent, on the stream, or never to be sent."""

    PENDING = "pending"
    SENT = "sent"
    REFUSED = "refused"


class PositionKey(NamedTuple):
    """Whose position, in which series."""

    strategy_id: int
    symbol: str
    timeframe: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of an intent."""

    state: ActionState
    reason: str | None = None
    """Why it is refused."""


class RiskBook:
    """What is open in the portfolio, and what more may be.

    Args:
        open_percent: shares of the portfolio that were opened and not closed, by position.
        cap_percent: most that may be open at a time.
    """

    def __init__(self, open_percent: Mapping[PositionKey, float], cap_percent: float) -> None:
        self._open = dict(open_percent)
        self._cap = cap_percent
        self.changed: dict[PositionKey, float] = {}
        """Positions whose share is another one now."""

    def judge(self, key: PositionKey, intent: Intent) -> Judged:
        """Judge an intent of a position; one that is sent changes what is open."""
        return self._open_more(key, intent) if intent.kind is IntentKind.OPEN else self._give_up(key, intent)

    def _open_more(self, key: PositionKey, intent: Intent) -> Judged:
        held = sum(self._open.values())
        if held + intent.size_percent > self._cap + ROUNDING_PERCENT:
            found = f"{held:g} % of the portfolio is open, {intent.size_percent:g} % more would pass the cap"
            return Judged(ActionState.REFUSED, f"{found} of {self._cap:g} %")
        self._set(key, intent.size_percent)
        return Judged(ActionState.PENDING)

    def _give_up(self, key: PositionKey, intent: Intent) -> Judged:
        held = self._open.get(key, 0.0)
        if held <= 0:
            return Judged(ActionState.REFUSED, "its opening was refused")
        self._set(key, 0.0 if intent.kind is IntentKind.CLOSE else max(0.0, held - intent.size_percent))
        return Judged(ActionState.PENDING)

    def _set(self, key: PositionKey, percent: float) -> None:
        self._open[key] = self.changed[key] = percent
