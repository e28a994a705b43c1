"""What the report of an evaluate run is gathered from beside its selection: all answers, and the rules in force."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from app.domain.runs import RunKind
from app.domain.selection import SelectionRules
from app.runs.report.answers import InForce, UnitAnswer
from app.storage.comparing import show_params
from app.storage.evaluations import Row, load_evaluated
from app.storage.run_deletion import KEPT_POSITIONS
from app.storage.runs import Run


def build_in_force(run: Run) -> InForce | None:
    """Build by what an evaluate run judges; None for a backtest."""
    if run.selection is None:
        return None
    length = run.spec.timeframe.duration
    return InForce(
        as_of=run.to_time,
        oldest=run.from_time,
        max_age_candles=round((run.to_time - run.from_time) / length) - 1,
        window=run.window,
        rules=SelectionRules.model_validate(run.selection["rules"]),
    )


def build_answers(connection: Connection, run: Run) -> list[UnitAnswer]:
    """Build what every unit of an evaluate run said and what became of it; nothing for a backtest."""
    if run.spec.kind is not RunKind.EVALUATE:
        return []
    kept = {_key(row): row for row in (run.selection or {}).get(KEPT_POSITIONS, ())}
    answers = [_answer(row, kept.get(_key(row))) for row in load_evaluated(connection, run.id)]
    # positions that were kept when the details of the run were deleted have lost their place in the order
    return sorted(answers, key=lambda each: each.rank or len(answers) + 1) if kept else answers


def _key(row: Row) -> tuple[str, str, str]:
    return row["strategy"], show_params(row["params"]), row["symbol"]


def _answer(row: Row, kept: Row | None) -> UnitAnswer:
    is_selected = row["rank"] is not None
    values: dict[str, Any] = {
        **{name: row[name] for name in UnitAnswer.model_fields if name in row and name != "error"},
        "id": row["number"],
        "stop": row["position_stop"] if is_selected else row["stop"],
        "target": row["position_target"] if is_selected else row["target"],
        "error": f"{row['error_class']}: {row['error']}" if row["error_class"] else None,
    }
    if kept is not None:
        values |= {name: kept[name] for name in UnitAnswer.model_fields if name in kept} | {"state": "succeeded"}
    return UnitAnswer(**values)
