"""What an evaluate run's report tells beside its selection: every unit's answer, and by which rules it was judged."""

from __future__ import annotations

from pydantic import Field, JsonValue

from app.domain.base import UtcDatetime, Value
from app.domain.selection import SelectionRules


class UnitAnswer(Value):
    """What one strategy said of one market's latest candle, and what became of it."""

    id: int
    """Number of the unit."""
    symbol: str
    strategy: str
    revision: int | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict)
    state: str
    """`succeeded`, `failed`, `stale` or `short_history`; `pending` or `cancelled` before it was answered, `deleted`
    when its answer is no longer stored."""
    open_time: UtcDatetime | None = None
    """Of the candle."""
    action: int | None = None
    """-1 short, 0 flat, 1 long."""
    strength: float | None = None
    edge_percent: float | None = None
    price: float | None = None
    """Close of the candle, quote currency."""
    stop: float | None = None
    """Of the position when it was selected, else what the strategy states; quote currency."""
    target: float | None = None
    """The same."""
    rank: int | None = None
    """Among the selected, from 1; None when it was not."""
    size_percent: float | None = None
    """Of the portfolio, when it was selected."""
    risk_percent: float | None = None
    """Of the portfolio, lost at the stop, when it was selected."""
    reason: str | None = None
    """Why it was rejected."""
    detail: str | None = None
    error: str | None = None
    """Why it failed."""


class InForce(Value):
    """By what an evaluate run judges: what it asked for, and the settings where it asked for nothing."""

    as_of: UtcDatetime
    """Open time of the first candle that does not count."""
    oldest: UtcDatetime
    """Open time of the oldest latest candle that is not stale."""
    max_age_candles: int
    window: int
    """Most candles of a market that its strategies see."""
    rules: SelectionRules
