"""What the tests of a strategy use: candles, one evaluation, and the gate's checks in this process. Public.

`candlefleet strategies verify` checks the same and more: in processes of their own, with the clock moved, without
network and files, and on stored candles.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from app.definitions import DEFAULT_WINDOW, LoadedDefinition, load_definitions
from app.domain.candles import Timeframe
from app.domain.strategies import Limits
from app.gate.markets import LIVELY, START, generate_markets, on_timeframe
from app.strategies.bars import Bars
from app.strategies.evaluation import evaluate
from app.strategies.registry import Registry
from app.strategies.sdk import Strategy
from app.strategies.verification.determinism import Twin, pick_questions
from app.strategies.verification.probe import Probe
from app.strategies.verification.report import Finding, Report
from app.strategies.verification.verification import QUESTIONS, Material, verify

__all__ = ["build_bars", "check", "check_definitions", "evaluate", "generate_bars"]

#: Milliseconds an evaluation may take here: somebody's laptop is not the fleet.
_PATIENCE = Limits(p95_ms=10_000, timeout_ms=60_000)


def build_bars(closes: Sequence[float], *, timeframe: str = "1h", volume: float = 1.0) -> Bars:
    """Build candles from their closes: each opens at the close before, without wicks.

    Args:
        closes: at least one, oldest first, quote currency.
        timeframe: of the candles; the first opens on 2024-01-01, a Monday.
        volume: of each, base units.
    """
    close = np.array(closes, np.float64)
    opened = np.concatenate((close[:1], close[:-1]))
    times = round(START.timestamp() * 1000) + np.arange(len(close)) * _milliseconds(timeframe)
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    return Bars("TEST-USD", Timeframe(timeframe), times, opened, high, low, close, np.full(len(close), volume))


def generate_bars(count: int = DEFAULT_WINDOW, *, timeframe: str = "1h") -> Bars:
    """Return candles of a calm market, always the same: the gate's first one.

    Args:
        count: at most 2,500.
        timeframe: of the candles.
    """
    return on_timeframe(generate_markets(), Timeframe(timeframe))[0].first(count)


def check(make: Callable[[], Strategy], *, timeframe: str = "1h", window: int = DEFAULT_WINDOW) -> Report:
    """Make the gate's checks: answers, look-ahead, warm-up, scale, state.

    Args:
        make: makes a fresh instance; a strategy class is that.
        timeframe: of the candles to check on.
        window: candles of a worker's window.

    Raises:
        AssertionError: a check failed; says which, where, and what to do.
    """
    markets = on_timeframe(generate_markets(), Timeframe(timeframe))
    probe = Probe(make, window)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the gate's own processes
        material = Material(markets, _twin(make(), markets, window), _PATIENCE, lively=markets[:LIVELY])
        report = verify(probe.strategy.name, probe, material)
    assert report.finding is None, _told(report.strategy, report.finding)  # noqa: S101 - a test's helper
    return report


def check_definitions(path: Path, *, modules: Sequence[str] = (), window: int = DEFAULT_WINDOW) -> list[Report]:
    """Load a definition file and check each strategy of it, on a timeframe that it subscribes to.

    Args:
        path: the file.
        modules: allow-listed module prefixes, as in CANDLEFLEET_STRATEGIES__MODULES.
        window: candles of a worker's window.

    Raises:
        ConfigurationError: everything that is wrong with the file.
        AssertionError: a check failed.
    """
    registry = Registry(tuple(modules))
    return [_check_definition(each, registry, window) for each in load_definitions(path, registry, window)]


def _check_definition(loaded: LoadedDefinition, registry: Registry, window: int) -> Report:
    definition = loaded.definition
    wanted = definition.subscription.timeframes
    timeframe = "1h" if "*" in wanted or "1h" in wanted else str(wanted[0])
    return check(
        lambda: registry.create(definition.implementation, definition.params, name=definition.name),
        timeframe=timeframe,
        window=window,
    )


def _twin(strategy: Strategy, markets: Sequence[Bars], window: int) -> Twin | None:
    """Return the answers of another instance; None when it gives none, of which the checks find the reason."""
    try:
        return Twin([evaluate(strategy, bars) for bars in pick_questions(markets, window, QUESTIONS)], ())
    except Exception:
        return None


def _told(name: str, finding: Finding) -> str:
    where = f" at {finding.symbol} {finding.timeframe} {finding.time}" if finding.time else ""
    what = f"expected {finding.expected}, found {finding.found}"
    return f"{name} does not pass the gate: {finding.check} ({finding.reason}){where}: {what}. {finding.hint}"


def _milliseconds(timeframe: str) -> int:
    return round(Timeframe(timeframe).duration.total_seconds() * 1000)
