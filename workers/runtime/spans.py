"""What the units of a slot share: the candles of a series with their indicators, and the strategies of a run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from app.domain.candles import Timeframe
from app.domain.runs import Variant
from app.errors import ConfigurationError, PermanentError
from app.runs.spans import Span, block_start
from app.storage.units import StoredRun
from app.strategies.bars import Bars
from app.strategies.fingerprint import Fingerprint, take_fingerprint
from app.strategies.registry import Registry
from app.strategies.sdk import Strategy
from workers.runtime.windows import to_ms

#: Strategies of runs that a slot keeps: a grid comes back to each for every symbol.
MOST_VARIANTS = 5000

#: Loads the candles of a series from `since` to `until`, and some before.
LoadRange = Callable[[str, Timeframe, datetime, datetime, int], Bars]
LoadVariant = Callable[[int, int], Variant]


class SpanCache:
    """The spans of one slot, least recently used dropped first; only the newest keeps its indicators."""

    def __init__(self, load: LoadRange, *, most_candles: int, cached_bytes: int) -> None:
        self._load = load
        self._most_candles = most_candles
        self._cached_bytes = cached_bytes
        self._spans: OrderedDict[tuple[int, str], Span] = OrderedDict()

    def span(self, run: StoredRun, symbol: str) -> Span:
        """Return the candles of a run's range, for one symbol.

        Raises:
            StorageUnavailableError: Postgres was needed and is away.
            PermanentError: there are none any more.
        """
        key = run.id, symbol
        if key not in self._spans:
            for other in self._spans.values():
                other.forget_indicators()
            self._spans[key] = self._build(run, symbol)
            self._make_room()
        self._spans.move_to_end(key)
        return self._spans[key]

    def _build(self, run: StoredRun, symbol: str) -> Span:
        from_ms = to_ms(run.from_time)
        since = datetime.fromtimestamp(block_start(from_ms, run.timeframe) / 1000, UTC)
        bars = self._load(symbol, run.timeframe, since, run.to_time, run.window - 1)
        first = int(np.searchsorted(bars.open_time, from_ms))
        if first == len(bars):
            raise PermanentError(f"the candles of {symbol} that were planned are not in Postgres any more")
        return Span(bars, first, run.window, self._cached_bytes)

    def _make_room(self) -> None:
        while len(self._spans) > 1 and sum(len(span.bars) for span in self._spans.values()) > self._most_candles:
            self._spans.popitem(last=False)


class VariantCache:
    """The variants of one slot and their strategies, least recently used dropped first."""

    def __init__(self, load: LoadVariant, registry: Registry) -> None:
        self._load = load
        self._registry = registry
        self._known: OrderedDict[tuple[int, int], tuple[Variant, Strategy]] = OrderedDict()

    def find(self, run_id: int, number: int) -> tuple[Variant, Strategy]:
        """Return a variant of a run and its strategy.

        Raises:
            ConfigurationError: it cannot be built here, or the code here is not what the run was planned with.
            StorageUnavailableError: Postgres was needed and is away.
        """
        key = run_id, number
        if key not in self._known:
            variant = self._load(run_id, number)
            self._known[key] = variant, self._build(variant)
            if len(self._known) > MOST_VARIANTS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _build(self, variant: Variant) -> Strategy:
        strategy = self._registry.create(variant.implementation, variant.params, name=variant.strategy)
        found = take_fingerprint(strategy, self._registry.allowed_modules)
        if Fingerprint.read(variant.fingerprint).code != found.code:
            raise ConfigurationError(
                f"strategy {variant.strategy!r}: the code on this node is not what the run was planned with: bring the "
                "same code to every node, and start the run anew if it was changed on purpose"
            )
        return strategy
