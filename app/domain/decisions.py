"""Decisions: the weighted consensus of a dispatch's outcomes, with a quorum. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from math import fsum
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from app.domain.base import Value
from app.domain.breakers import BreakerRules
from app.domain.jobs import OutcomeStatus


class ClosedBy(StrEnum):
    """Why a decision was made when it was."""

    COMPLETE = "complete"
    QUORUM = "quorum"
    DEADLINE = "deadline"


class DecisionRules(Value):
    """How a dispatch's outcomes become its decision, and when a strategy is left alone."""

    quorum: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the expected weight that must have succeeded to name an action."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Least absolute score that is a direction."""
    breaker: BreakerRules = BreakerRules()


class Heard(NamedTuple):
    """What one landed outcome contributes to a decision."""

    strategy_id: int
    status: OutcomeStatus
    action: int | None
    strength: float | None


class Decision(Value):
    """The aggregate of a dispatch's outcomes.

    `action` is None when the succeeded strategies carry less weight than the quorum: that nobody
    answered is not a reason to go flat.
    """

    action: Literal[-1, 0, 1] | None
    score: Annotated[float, Field(ge=-1, le=1)]
    """Weighted mean of action x strength over the succeeded strategies, -1 to 1."""
    weight_heard: Annotated[float, Field(ge=0, le=1)]
    """Share of the expected weight that succeeded, 0 to 1."""
    missing: tuple[int, ...]
    """Strategies without an outcome when the decision was made, ascending."""
    closed_by: ClosedBy


def decide(
    weights: Mapping[int, float],
    heard: Iterable[Heard],
    *,
    quorum: float,
    threshold: float,
    closed_by: ClosedBy = ClosedBy.COMPLETE,
) -> Decision:
    """Build the decision of a dispatch from the outcomes that have landed.

    The result does not depend on the order of `heard`: sums are exact (`math.fsum`).

    Args:
        weights: weight of every expected strategy, by id.
        heard: landed outcomes; those of strategies that were not expected are ignored.
        quorum: share of the expected weight (0..1) that must have succeeded to name an action.
        threshold: least absolute score (0..1) that is a direction.
        closed_by: why the decision is made now.
    """
    landed = {item.strategy_id: item for item in heard if item.strategy_id in weights}
    spoken = [item for item in landed.values() if item.status is OutcomeStatus.SUCCEEDED]
    total = fsum(weights.values())
    weight = fsum(weights[item.strategy_id] for item in spoken)
    votes = fsum(weights[item.strategy_id] * (item.action or 0) * (item.strength or 0.0) for item in spoken)
    score = _clamp(votes / weight, -1.0) if weight else 0.0
    share = _clamp(weight / total, 0.0) if total else 0.0
    return Decision(
        action=_direction(score, threshold) if spoken and share >= quorum else None,
        score=score,
        weight_heard=share,
        missing=tuple(sorted(weights.keys() - landed.keys())),
        closed_by=closed_by,
    )


def _clamp(value: float, low: float) -> float:
    # a quotient of rounded sums may pass its bound by one unit in the last place
    return min(1.0, max(low, value))


def _direction(score: float, threshold: float) -> Literal[-1, 0, 1]:
    if abs(score) < threshold or score == 0:
        return 0
    return 1 if score > 0 else -1
