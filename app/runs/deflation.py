"""The Sharpe ratio deflated by the number of trials: how much of it is luck of the best of many. Pure.

Source: Bailey and Lopez de Prado, The Deflated Sharpe Ratio: Correcting for Selection Bias, Backtest Overfitting and
Non-Normality, Journal of Portfolio Management 40 (5), 2014. Sharpe ratios are those per candle, never annualised.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import NormalDist, variance
from typing import NamedTuple

from app.domain.base import Value
from app.domain.candles import Timeframe
from app.runs.metrics import Metrics

#: Euler and Mascheroni's constant.
EULER_GAMMA = 0.577_215_664_901_532_9

_NORMAL = NormalDist()


class Trial(NamedTuple):
    """One unit of this or an earlier run: something that was tried on some data."""

    symbol: str
    timeframe: Timeframe
    from_ms: int
    """First candle's open time, epoch ms."""
    to_ms: int
    """Exclusive end, epoch ms."""
    identity: str
    """What was tried: strategy, revision and params. Equal ones on the same range are one trial: running a thing
    again is not another try."""
    sharpe_per_candle: float | None
    """None: it has none, because it failed or never traded; it counts as a trial all the same."""


class Tried(NamedTuple):
    """How much was tried before a unit was chosen."""

    trials: int
    variance: float
    """Of the trials' Sharpe ratios per candle; 0 when fewer than two are known."""


class DeflatedSharpe(Value):
    """A Sharpe ratio in the light of everything that was tried."""

    probability: float
    """That the true Sharpe ratio is above what the best of so many worthless trials would show, 0 to 1."""
    benchmark_per_candle: float
    """What the best of so many worthless trials is expected to show."""
    benchmark: float | None
    """The same, a year."""
    trials: int


def count_trials(run: Sequence[Trial], earlier: Iterable[Trial] = ()) -> Tried:
    """Count what was tried: every unit of the run, and those of earlier runs on the same data.

    The best unit of a run was chosen from all of its units, whatever they were about; and whoever chose them knew what
    earlier runs had shown.

    Args:
        run: the units of the run.
        earlier: the units of earlier runs; those count whose series is one of the run's and whose range overlaps its.
    """
    ranges: dict[tuple[str, Timeframe], set[tuple[int, int]]] = defaultdict(set)
    for trial in run:
        ranges[trial.symbol, trial.timeframe].add((trial.from_ms, trial.to_ms))
    known = [each for each in earlier if _overlaps(each, ranges.get((each.symbol, each.timeframe), ()))]
    return _count((*run, *known))


def deflate(metrics: Metrics, tried: Tried) -> DeflatedSharpe | None:
    """Deflate the Sharpe ratio of a unit; None when it has none, or too few candles to judge it.

    Args:
        metrics: of the unit.
        tried: in its run and before, the unit itself included.
    """
    sharpe, skew, kurtosis = metrics.sharpe_per_candle, metrics.skew, metrics.kurtosis
    if sharpe is None or skew is None or kurtosis is None:
        return None
    benchmark = expected_maximum(tried.trials, tried.variance)
    probability = probabilistic_sharpe(sharpe, benchmark, metrics.candles - 1, skew, kurtosis)
    if probability is None:
        return None
    per_year = metrics.periods_per_year
    return DeflatedSharpe(
        probability=probability,
        benchmark_per_candle=benchmark,
        benchmark=None if per_year is None else benchmark * math.sqrt(per_year),
        trials=tried.trials,
    )


def deflated_sharpe(
    sharpe: float, observations: int, skew: float, kurtosis: float, trials: int, trial_variance: float
) -> float | None:
    """Return the probability that a Sharpe ratio is more than the luck of the best of many trials.

    Args:
        sharpe: per observation.
        observations: number of returns it was measured on.
        skew: of the returns.
        kurtosis: of the returns; 3 when they are normal.
        trials: independent ones, this one included.
        trial_variance: of the trials' Sharpe ratios per observation.

    Returns:
        0 to 1; None with fewer than two observations, or returns that take two values only in a way that leaves no
        uncertainty.
    """
    return probabilistic_sharpe(sharpe, expected_maximum(trials, trial_variance), observations, skew, kurtosis)


def probabilistic_sharpe(
    sharpe: float, benchmark: float, observations: int, skew: float, kurtosis: float
) -> float | None:
    """Return the probability that the true Sharpe ratio is above a benchmark, both per observation.

    Source: Bailey and Lopez de Prado, The Sharpe Ratio Efficient Frontier, Journal of Risk 15 (2), 2012.
    """
    spread = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if observations < 2 or spread <= 0:
        return None
    return _NORMAL.cdf((sharpe - benchmark) * math.sqrt(observations - 1) / math.sqrt(spread))


def expected_maximum(trials: int, trial_variance: float) -> float:
    """Return the Sharpe ratio that the best of independent trials without any worth is expected to show.

    Args:
        trials: at least 1; of a single one nothing was chosen, and 0 is returned.
        trial_variance: of their Sharpe ratios, per observation.

    Raises:
        ValueError: no trial at all, or a variance below 0.
    """
    if trials < 1 or not trial_variance >= 0:
        raise ValueError(f"expected at least 1 trial and a variance of 0 or more, found {trials} and {trial_variance}")
    if trials == 1:
        return 0.0
    usual, late = _NORMAL.inv_cdf(1 - 1 / trials), _NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(trial_variance) * ((1 - EULER_GAMMA) * usual + EULER_GAMMA * late)


def _overlaps(trial: Trial, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(trial.from_ms < to_ms and from_ms < trial.to_ms for from_ms, to_ms in ranges)


def _count(trials: Sequence[Trial]) -> Tried:
    # of equal trials that differ in their Sharpe ratio (another version of numpy) the highest counts
    found = {trial[:-1]: trial.sharpe_per_candle for trial in sorted(trials, key=_known_sharpe)}
    sharpes = [sharpe for sharpe in found.values() if sharpe is not None]
    return Tried(len(found), variance(sharpes) if len(sharpes) > 1 else 0.0)


def _known_sharpe(trial: Trial) -> float:
    return -math.inf if trial.sharpe_per_candle is None else trial.sharpe_per_candle
