"""What is landed, and how it travels: the rows of a message as arrays, the parameters of the landing's statements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.domain.decisions import Decision
from app.domain.jobs import Outcome, OutcomeStatus, Signal
from app.storage.arrays import FLOAT4, FLOAT8, INT2, INT4, INT8, build_array

#: Statuses travel as their place in this list, counted from 1 as Postgres does.
_STATUSES = "{" + ",".join(OutcomeStatus) + "}"
_CODES = {status: code for code, status in enumerate(OutcomeStatus, start=1)}

#: A landing of this share of its dispatch, or less, is taken for one that does not complete it.
SMALL_SHARE = 4


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a job that did not succeed and is not its end."""

    strategy_id: int
    attempt: int
    status: OutcomeStatus
    error_class: str
    error: str
    processing_ms: float
    queued_ms: float = 0.0
    """From the dispatch until it began; not stored."""


@dataclass(frozen=True, slots=True)
class Landing:
    """What is to be recorded of one dispatch."""

    dispatch_id: int
    outcomes: Sequence[Outcome]
    """Ends of jobs."""
    attempts: Sequence[Attempt] = ()
    """Attempts that will be followed by another."""
    crashed: Sequence[int] = ()
    """Strategies that killed their slot."""
    expected: int = 0
    """Jobs of the whole dispatch; 0 when that is not known."""

    @property
    def is_small(self) -> bool:
        """Whether the dispatch probably misses others still when this has landed."""
        return SMALL_SHARE * (len(self.outcomes) + len(self.attempts)) <= self.expected and not self.crashed


def land_values(landings: Sequence[Landing], worker: str) -> dict[str, Any]:
    """Build the parameters of the statement that lands: dispatches in the order of their ids, rows as arrays.

    Args:
        landings: what to record.
        worker: who executed it.
    """
    in_order = sorted(landings, key=lambda landing: landing.dispatch_id)
    asked = strategies_of(in_order)
    return {
        "ids": build_array(INT8, list(asked)),
        "asked": [_literal(tuple(strategies)) for strategies in asked.values()],
        "statuses": _STATUSES,
        "may_complete": True,
        "worker": worker,
        "wants_news": any(landing.crashed for landing in landings),
        **_outcome_arrays([(landing.dispatch_id, outcome) for landing in in_order for outcome in landing.outcomes]),
        **_attempt_arrays([(landing.dispatch_id, tried) for landing in in_order for tried in landing.attempts]),
    }


def strategies_of(landings: Sequence[Landing]) -> dict[int, list[int]]:
    """Return by dispatch whose outcomes and attempts are to be recorded."""
    found: dict[int, list[int]] = {}
    for landing in landings:
        numbers = found.setdefault(landing.dispatch_id, [])
        numbers += [outcome.strategy_id for outcome in landing.outcomes]
        numbers += [tried.strategy_id for tried in landing.attempts]
    return found


@lru_cache(maxsize=1024)
def _literal(values: tuple[int, ...]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _outcome_arrays(rows: Sequence[tuple[int, Outcome]]) -> dict[str, Any]:
    outcomes = [outcome for _, outcome in rows]
    signals = [outcome.signal for outcome in outcomes]
    return {
        "o_dispatch": build_array(INT8, [dispatch_id for dispatch_id, _ in rows]),
        "o_strategy": build_array(INT4, [o.strategy_id for o in outcomes]),
        "o_revision": build_array(INT4, [o.strategy_revision for o in outcomes]),
        "o_status": build_array(INT2, [_CODES[o.status] for o in outcomes]),
        "o_action": build_array(INT2, [None if s is None else s.action for s in signals]),
        "o_strength": build_array(FLOAT8, [None if s is None else s.strength for s in signals]),
        "o_edge": build_array(FLOAT8, [None if s is None else s.edge for s in signals]),
        "o_detail": _texts([_detail(signal) for signal in signals]),
        "o_class": _texts([o.error_class for o in outcomes]),
        "o_error": _texts([o.error for o in outcomes]),
        "o_attempt": build_array(INT2, [o.attempt for o in outcomes]),
        "o_queued": build_array(FLOAT4, [o.queued_ms for o in outcomes]),
        "o_took": build_array(FLOAT4, [o.processing_ms for o in outcomes]),
    }


def _attempt_arrays(rows: Sequence[tuple[int, Attempt]]) -> dict[str, Any]:
    attempts = [tried for _, tried in rows]
    return {
        "a_dispatch": build_array(INT8, [dispatch_id for dispatch_id, _ in rows]),
        "a_strategy": build_array(INT4, [a.strategy_id for a in attempts]),
        "a_attempt": build_array(INT2, [a.attempt for a in attempts]),
        "a_status": [a.status.value for a in attempts],
        "a_class": [a.error_class for a in attempts],
        "a_error": [a.error for a in attempts],
        "a_took": build_array(FLOAT4, [a.processing_ms for a in attempts]),
    }


def _texts(values: list[str | None]) -> list[str | None] | None:
    """Return a column of texts, None when it is empty: `unnest` fills a column that is not there with NULL."""
    return values if any(value is not None for value in values) else None


def _detail(signal: Signal | None) -> str | None:
    if signal is None or (signal.stop is None and signal.target is None and not signal.extras):
        return None
    kept = {"stop": signal.stop, "target": signal.target, "extras": signal.extras or None}
    return json.dumps({name: value for name, value in kept.items() if value is not None})


def decision_values(decisions: Mapping[int, Decision]) -> dict[str, Any]:
    """Build the parameters of the statement that decides, from decisions by dispatch."""
    made = list(decisions.values())
    return {
        "ids": build_array(INT8, list(decisions)),
        "actions": build_array(INT2, [each.action for each in made]),
        "scores": build_array(FLOAT8, [each.score for each in made]),
        "heard": build_array(FLOAT8, [each.weight_heard for each in made]),
        "missing": [_literal(each.missing) for each in made],
        "closed_by": [each.closed_by.value for each in made],
    }
