"""Documents of reports: made-up runs of any size, the same for the same size."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from pydantic import JsonValue

from app.domain.candles import Timeframe
from app.domain.runs import RunKind
from app.domain.selection import Candidate, Selection, SelectionRules, select
from app.runs.deflation import Trial, count_trials, deflate
from app.runs.metrics import compute
from app.runs.report.document import (
    DataRange,
    Document,
    RunSummary,
    SelectionReport,
    UnitReport,
    build_document,
)
from app.runs.report.sampling import sample
from app.runs.shapes import Curve, FloatArray, Trade, Trades
from app.runs.validation import RunFigures, validate

NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
FROM = datetime(2024, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
RULES = SelectionRules(min_edge_percent=2.0)
#: Two variants of one strategy, and four strategies of one.
VARIANTS: list[tuple[str, dict[str, JsonValue]]] = [
    ("ema_cross", {"fast": 12, "slow": 26, "atr": 14}),
    ("ema_cross", {"fast": 9, "slow": 21.5, "atr": 14}),
    ("macd", {"fast": 12, "slow": 26, "signal": 9}),
    ("supertrend", {"period": 10, "multiplier": 3.0}),
    ("donchian_breakout", {"period": 20, "exit": 10}),
    ("adx_trend", {}),
]


def unit_curve(seed: int, candles: int) -> Curve:
    """Build a curve of a strategy that is in the market about half of the time."""
    random = np.random.default_rng(seed)
    moves = random.normal(0.00001, 0.006, candles)
    sizes: FloatArray = np.array([-0.5, 0.0, 0.5, 1.0])
    held = np.repeat(random.choice(sizes, candles // 40 + 1), 40)[:candles]
    skill = random.normal(0.0, 0.00008)
    close = (100 * np.cumprod(1 + moves)).astype(np.float64)
    equity = 10_000 * np.cumprod(np.concatenate([[1.0], 1 + held[:-1] * (moves[1:] + skill)]))
    times = round(FROM.timestamp() * 1000) + HOUR_MS * np.arange(1, candles + 1)
    return Curve(times, equity, held, close)


def unit_trades(curve: Curve) -> Trades:
    """Build a trade for each stretch of 40 candles with a position."""
    trades = []
    for first in range(0, len(curve.close) - 40, 40):
        if curve.exposure[first]:
            profit = float(curve.equity[first + 40] - curve.equity[first])
            prices = float(curve.close[first]), float(curve.close[first + 40])
            at = int(curve.times_ms[first])
            trades.append(Trade(at, at + 40 * HOUR_MS, 1, 50.0, *prices, 4.0, profit, "signal"))
    return Trades.build(trades)


def unit(number: int, candles: int) -> UnitReport:
    """Build the unit of a number."""
    name, params = VARIANTS[number % len(VARIANTS)]
    symbol = f"C{number // len(VARIANTS):03d}-USD"
    if number % 97 == 96:
        error = "InvalidSignalError: expected strength to be 0 to 1, found 1.5"
        return UnitReport(id=number, strategy=name, symbol=symbol, timeframe=Timeframe.H1, state="failed", error=error)
    curve = unit_curve(number, candles)
    return UnitReport(
        id=number,
        strategy=name,
        revision=1,
        params=params,
        symbol=symbol,
        timeframe=Timeframe.H1,
        state="succeeded",
        metrics=compute(curve, unit_trades(curve), Timeframe.H1),
    )


def deflated(units: list[UnitReport]) -> list[UnitReport]:
    """Deflate every Sharpe ratio by all units."""
    trials = [
        Trial(
            each.symbol,
            each.timeframe,
            0,
            1,
            f"{each.strategy} {each.params}",
            each.metrics.sharpe_per_candle if each.metrics else None,
        )
        for each in units
    ]
    tried = count_trials(trials)
    return [
        each.model_copy(update={"deflated": deflate(each.metrics, tried)}) if each.metrics else each for each in units
    ]


def with_curves(units: list[UnitReport], count: int, candles: int) -> list[UnitReport]:
    """Keep the curves of the best units, as a run does."""
    known = sorted(units, key=lambda each: each.metrics.sharpe or 0.0 if each.metrics else -99.0)
    best = {each.id for each in known[-count:] if each.metrics}
    return [
        each.model_copy(update={"curve": sample(unit_curve(each.id, candles))}) if each.id in best else each
        for each in units
    ]


def selection(symbols: int) -> Selection:
    """Build a selection of one candidate a symbol."""
    random = np.random.default_rng(5)
    made = [
        Candidate(
            f"C{number:03d}-USD",
            "macd",
            ("trend", "momentum", "reversion", "breakout")[number % 4],
            int(random.integers(-1, 2)),
            None if number % 9 == 8 else float(random.uniform(0, 6)),
            float(random.uniform(0, 1)),
            float(10 ** random.uniform(-4, 5)),
        )
        for number in range(symbols)
    ]
    return select(made, [], RULES)


def document(units: int, *, curves: int = 100, candles: int = 2000) -> Document:
    """Build the document of a run of so many units."""
    made = with_curves([unit(number, candles) for number in range(units)], curves, candles)
    symbols = sorted({each.symbol for each in made})
    chosen = selection(len(symbols)) if units > 1 else None
    failed = sum(each.error is not None for each in made)
    figures = RunFigures(
        units=units,
        succeeded=units - failed,
        failed=failed,
        markets=len(symbols),
        evaluations=units - failed,
        elapsed_s=units / 300,
        mean_ms=6.3,
        memory_mb=236.0,
        cpu_percent=188.0,
    )
    return build_document(
        made_at=NOW,
        run=RunSummary(
            id=42,
            kind="backtest",
            state="finished",
            created_at=NOW - timedelta(minutes=2),
            started_at=NOW - timedelta(minutes=2),
            finished_at=NOW,
            units=units,
            succeeded=units - failed,
            failed=failed,
            candles=units * candles,
        ),
        spec={
            "kind": "backtest",
            "strategies": [name for name, _ in VARIANTS[1:]],
            "symbols": ["C*-USD"],
            "timeframe": "1h",
            "from": "2024-01-01",
            "to": "2024-03-24",
            "trading": {"capital": 10_000, "fee_percent": 0.1, "slippage_percent": 0.05},
        },
        data=[data_range(number, symbol, candles) for number, symbol in enumerate(symbols)],
        versions={"candlefleet": "0.1.0", "numpy": "2.4.6", "TA-Lib": "0.8.2", "python": "3.11.7"},
        units=deflated(made),
        selection=SelectionReport.of(chosen, RULES) if chosen else None,
        validation=validate(RunKind.EVALUATE, figures, RULES, chosen),
    )


def data_range(number: int, symbol: str, candles: int) -> DataRange:
    """Build what is said of a series; every seventh has gaps."""
    gaps = 3 if number % 7 == 6 else 0
    return DataRange(
        symbol=symbol,
        timeframe=Timeframe.H1,
        from_time=FROM,
        to_time=FROM + timedelta(hours=candles),
        candles=candles,
        gaps=gaps,
        missing=2 * gaps,
        longest_gap_s=7200.0 if gaps else 0.0,
    )
