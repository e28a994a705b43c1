"""The report of a run: gathered from what is stored, built by `app.runs.report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy import Connection

from app.domain.base import Value
from app.domain.runs import LATEST, RunKind, UnitState
from app.domain.selection import SelectionRules
from app.operations import Operations
from app.operations_evaluations import read_selection
from app.operations_report_evaluations import build_answers, build_in_force
from app.runs.deflation import Trial, Tried, count_trials, deflate
from app.runs.metrics import Metrics
from app.runs.report.document import (
    DataRange,
    Document,
    RejectedCandidate,
    RunSummary,
    SelectedPosition,
    SelectionReport,
    UnitReport,
    VariantVersion,
    build_document,
)
from app.runs.report.sampling import SampledCurve
from app.runs.validation import ValidationRecord
from app.storage import run_reports as stored
from app.storage import runs
from app.storage.runs import Run, dump_spec

#: Units whose curve is drawn: more cannot be told apart on a page.
MOST_CURVES = 100

#: Strategies with a symbol whose best unit has its curve drawn, whatever its rank.
MOST_PAIRS = 20

#: Rejections that are told, those that came closest first.
MOST_REJECTED = 10_000

#: Packages whose version a result depends on.
PACKAGES = ("candlefleet", "numpy", "TA-Lib")


def build_report(operations: Operations, run_id: int) -> Document:
    """Gather everything that is told of a run, finished or not.

    Raises:
        ConfigurationError: there is none of that number.
    """
    with operations.reading() as connection:
        run = runs.load_run(connection, run_id)
        progress = runs.load_progress(connection, run_id)
        rows = stored.load_units(connection, run_id)
        spec = run.spec
        earlier = stored.load_earlier(connection, run_id, spec.timeframe, spec.from_time, spec.to_time)
        curves = stored.load_curves(connection, run_id, _best(rows))
        data = _data(connection, run)
        started_at = stored.load_start(connection, run_id)
        selection = _selection(connection, run)
        answers = build_answers(connection, run)
        variants = stored.load_variants(connection, run_id)
    executed = [row for row in rows if row["state"] in (UnitState.SUCCEEDED, UnitState.FAILED)]
    tried = count_trials([_trial_of(run, row) for row in executed], [_trial(run, row) for row in earlier])
    counts = progress.units
    return build_document(
        made_at=datetime.now(UTC),
        run=RunSummary(
            id=run.id,
            kind=spec.kind.value,
            state=progress.state.value,
            created_at=run.created_at,
            started_at=started_at,
            finished_at=run.finished_at,
            units=run.units,
            succeeded=counts[UnitState.SUCCEEDED],
            failed=counts[UnitState.FAILED],
            cancelled=counts[UnitState.CANCELLED],
            candles=progress.candles,
            trimmed=progress.is_trimmed,
        ),
        spec=_asked_for(run),
        data=data,
        warnings=run.warnings,
        versions={name: version(name) for name in PACKAGES},
        variants=[VariantVersion(**each) for each in variants],
        units=[_unit(run, row, curves.get(row["number"]), tried) for row in rows],
        in_force=build_in_force(run),
        selection=selection,
        answers=answers,
        validation=None if run.validation is None else ValidationRecord.model_validate(run.validation),
    )


def _asked_for(run: Run) -> dict[str, Any]:
    """Return the specification, of an evaluate run without the range that it has not."""
    spec = dump_spec(run.spec)
    if run.spec.kind is RunKind.BACKTEST:
        return spec
    foreign = {"from", "trading"} | ({"to"} if run.spec.to_time == LATEST else set())
    return {name: value for name, value in spec.items() if name not in foreign}


def _selection(connection: Connection, run: Run) -> SelectionReport | None:
    if run.selection is None or "selected" not in run.selection:
        return None
    found = read_selection(connection, run.id, run.selection, MOST_REJECTED)
    return SelectionReport(
        rules=SelectionRules.model_validate(found.summary["rules"]),
        selected=tuple(SelectedPosition(**_fields(SelectedPosition, row)) for row in found.selected),
        rejected=tuple(_rejected(row) for row in found.rejected),
        reasons=found.summary["rejected"],
        risk_percent=found.summary["risk_percent"],
        exposure_percent=found.summary["exposure_percent"],
    )


def _rejected(row: stored.Row) -> RejectedCandidate:
    values = _fields(RejectedCandidate, row)
    return RejectedCandidate(**{**values, "action": row["action"] or 0, "detail": row["detail"] or ""})


def _fields(model: type[Value], row: stored.Row) -> stored.Row:
    return {name: row[name] for name in model.model_fields}


def _best(rows: Sequence[stored.Row]) -> list[int]:
    """Return the units with the highest Sharpe ratio, and the best one of each of the best strategies and symbols."""
    known = [row for row in rows if row["metrics"]]
    ranked = sorted(known, key=lambda row: (row["metrics"]["sharpe"] is None, -(row["metrics"]["sharpe"] or 0.0)))
    firsts: dict[tuple[str, str], int] = {}
    for row in ranked:
        firsts.setdefault((row["strategy"], row["symbol"]), row["number"])
    return [*(row["number"] for row in ranked[:MOST_CURVES]), *list(firsts.values())[:MOST_PAIRS]]


def _unit(run: Run, row: stored.Row, curve: stored.Row | None, tried: Tried) -> UnitReport:
    metrics = _metrics(row["metrics"])
    return UnitReport(
        id=row["number"],
        strategy=row["strategy"],
        revision=row["revision"],
        params=row["params"],
        symbol=row["symbol"],
        timeframe=run.spec.timeframe,
        state=row["state"],
        error=f"{row['error_class']}: {row['error']}" if row["error_class"] else None,
        metrics=metrics,
        deflated=deflate(metrics, tried) if metrics else None,
        curve=None if curve is None else _curve(curve),
    )


def _metrics(values: dict[str, Any] | None) -> Metrics | None:
    return Metrics.model_validate(values) if values else None


def _curve(row: stored.Row) -> SampledCurve:
    return SampledCurve(
        times_ms=tuple(row["closed_ms"]),
        equity=tuple(row["equity"]),
        drawdown_percent=tuple(row["drawdown_percent"]),
        close=tuple(row["close"]),
    )


def _trial_of(run: Run, row: stored.Row) -> Trial:
    metrics = row["metrics"] or {}
    own = {"from_time": run.spec.from_time, "to_time": run.spec.to_time, "sharpe": metrics.get("sharpe_per_candle")}
    return _trial(run, {**row, **own})


def _trial(run: Run, row: stored.Row) -> Trial:
    since, until = (round(row[name].timestamp() * 1000) for name in ("from_time", "to_time"))
    identity = json.dumps([row["implementation"], row["fingerprint"], row["params"]], sort_keys=True)
    return Trial(row["symbol"], run.spec.timeframe, since, until, identity, row["sharpe"])


def _data(connection: Connection, run: Run) -> list[DataRange]:
    spec, length = run.spec, run.spec.timeframe.duration
    range_ = (spec.timeframe, [each.symbol for each in run.series], run.from_time, run.to_time)
    ends = stored.load_ends(connection, *range_)
    broken = [each.symbol for each in run.series if each.missing]
    gaps = stored.load_gaps(connection, spec.timeframe, broken, run.from_time, run.to_time) if broken else {}
    return [
        DataRange(
            symbol=each.symbol,
            timeframe=spec.timeframe,
            from_time=ends[each.symbol].last if spec.kind is RunKind.EVALUATE else ends[each.symbol].first,
            to_time=ends[each.symbol].last + length,
            candles=each.candles,
            gaps=gaps[each.symbol].number if each.symbol in gaps else 0,
            missing=each.missing,
            longest_gap_s=gaps[each.symbol].longest_s if each.symbol in gaps else 0.0,
        )
        for each in run.series
        if each.symbol in ends
    ]
