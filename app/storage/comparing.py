"""What a comparison reads: the signals of a run's units, and what live recorded of the same candles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, text

from app.runs.shapes import FloatArray, IntArray

#: Variants whose strategy and params are a revision of the catalogue have one; only these can be found in the ledger.
_UNITS = text("""
    SELECT u.number, v.strategy, v.strategy_id, v.revision, u.symbol, s.opened_ms, s.action, s.strength
    FROM units u
    JOIN variants v ON v.run_id = u.run_id AND v.number = u.variant
    JOIN unit_signals s ON s.run_id = u.run_id AND s.unit = u.number
    WHERE u.run_id = :run AND u.state = 'succeeded' AND v.revision IS NOT NULL
    ORDER BY u.number
""")

# a corrected candle was dispatched again: what was said of the newest revision counts
_LIVE = text("""
    SELECT DISTINCT ON (d.open_time) CAST(extract(epoch FROM d.open_time) * 1000 AS bigint) AS opened_ms,
           o.action, o.strength
    FROM dispatches d JOIN outcomes o ON o.dispatch_id = d.id
    WHERE d.symbol = :symbol AND d.timeframe = :timeframe AND d.open_time >= :since AND d.open_time < :until
      AND o.strategy_id = :strategy_id AND o.strategy_revision = :revision AND o.status = 'succeeded'
    ORDER BY d.open_time, d.revision DESC
""")

_FIGURES = text("""
    SELECT v.strategy, v.params, u.symbol, u.metrics
    FROM units u JOIN variants v ON v.run_id = u.run_id AND v.number = u.variant
    WHERE u.run_id = :run AND u.state = 'succeeded' ORDER BY u.number
""")


class Said(NamedTuple):
    """What was said at some candles, oldest first."""

    opened_ms: IntArray
    action: IntArray
    strength: FloatArray


class SaidByUnit(NamedTuple):
    """Where a unit's strategy said something else than before, and what."""

    number: int
    strategy: str
    strategy_id: int
    revision: int
    symbol: str
    changes: Said


def load_unit_signals(connection: Connection, run_id: int) -> Iterator[SaidByUnit]:
    """Load the units of a run that have a revision of the catalogue, with their changes of signal."""
    for row in connection.execute(_UNITS, {"run": run_id}):
        changes = _said(row.opened_ms, row.action, row.strength)
        yield SaidByUnit(row.number, row.strategy, row.strategy_id, row.revision, row.symbol, changes)


def load_live_signals(
    connection: Connection, unit: SaidByUnit, timeframe: str, since: datetime, until: datetime
) -> Said:
    """Load what live recorded of a unit's strategy, revision and candles."""
    wanted = {"symbol": unit.symbol, "strategy_id": unit.strategy_id, "revision": unit.revision}
    rows = connection.execute(_LIVE, {**wanted, "timeframe": timeframe, "since": since, "until": until}).all()
    return _said(*zip(*rows, strict=True)) if rows else _said((), (), ())


def load_figures(connection: Connection, run_id: int) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Load the figures of a run's units by strategy, params and symbol."""
    rows = connection.execute(_FIGURES, {"run": run_id})
    return {(row.strategy, show_params(row.params), row.symbol): row.metrics for row in rows}


def show_params(params: dict[str, Any]) -> str:
    """Return params in one line, the same for the same params."""
    return ", ".join(f"{name}={value}" for name, value in sorted(params.items()))


def _said(opened_ms: Any, action: Any, strength: Any) -> Said:
    return Said(np.array(opened_ms, np.int64), np.array(action, np.int64), np.array(strength, np.float64))
