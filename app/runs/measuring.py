"""The figures of a unit: the one place that turns a curve and trades into what is stored and compared."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from app.domain.candles import Timeframe
from app.runs.shapes import Curve, Trade


def measure(curve: Curve, trades: Sequence[Trade], timeframe: Timeframe) -> dict[str, JsonValue]:
    """Return the figures of a unit, as plain JSON values."""
    del timeframe
    start, end = float(curve.equity[0]), float(curve.equity[-1])
    return {
        "total_return_percent": 100 * (end / start - 1),
        "trades": len(trades),
        "fees": sum(trade.fees for trade in trades),
    }
