"""The report as CSV, one row a unit: every metric of a backtest's, the answer of an evaluate run's and its fate.

A spreadsheet may open it: no cell is a formula.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime

from app.runs.deflation import DeflatedSharpe
from app.runs.metrics import Metrics
from app.runs.report.answers import UnitAnswer
from app.runs.report.document import Document, UnitReport

_OWN = ("rank", "unit", "strategy", "revision", "params", "symbol", "timeframe", "state")
_METRICS = tuple(Metrics.model_fields)
_DEFLATED = tuple(DeflatedSharpe.model_fields)
_ANSWER = tuple(UnitAnswer.model_fields)

#: What a spreadsheet takes for the start of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(document: Document) -> str:
    """Build the CSV: a header, then the units, best first. Undefined is empty; numbers have all their digits."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if document.run.kind == "evaluate":
        writer.writerow(("unit", *_ANSWER[1:]))
        writer.writerows([_shown(getattr(answer, name)) for name in _ANSWER] for answer in document.answers)
        return text.getvalue()
    writer.writerow((*_OWN, *_METRICS, *(f"deflated_{name}" for name in _DEFLATED)))
    for rank, unit in enumerate(document.units, 1):
        writer.writerow((rank, *_own_cells(unit), *_cells(unit.metrics, _METRICS), *_cells(unit.deflated, _DEFLATED)))
    return text.getvalue()


def _own_cells(unit: UnitReport) -> Iterator[object]:
    yield unit.id
    yield _plain(unit.strategy)
    yield unit.revision
    yield json.dumps(unit.params, sort_keys=True)
    yield _plain(unit.symbol)
    yield unit.timeframe.value
    yield _plain(unit.state)


def _cells(values: Metrics | DeflatedSharpe | None, names: tuple[str, ...]) -> Iterator[object]:
    for name in names:
        yield getattr(values, name, None)


def _shown(value: object) -> object:
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return value.isoformat() if isinstance(value, datetime) else value


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
