"""Strategies of one slot: created once per revision, closed when they get no more jobs or are too many.

Their limits are as fresh as the chunk asks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import structlog

from app.domain.jobs import JobKey
from app.domain.strategies import Limits, Trading
from app.errors import CandlefleetError, ConfigurationError, UnknownStrategyError
from app.storage.strategies import Retired, Revision
from app.strategies.fingerprint import Fingerprint, take_fingerprint
from app.strategies.registry import Registry
from app.strategies.sdk import Strategy
from workers.runtime.limits import clock
from workers.runtime.surroundings import kept

log = structlog.get_logger()

#: Characters of a fingerprint that people are shown.
SHOWN = 12

#: Seconds for which a revision that was replaced is kept: longer than retries of its last jobs are apart, by default.
REPLACED_FOR_S = 60.0

#: Seconds that closing an instance may take: what a slot does meanwhile waits.
CLOSED_WITHIN_S = 1.0

LoadRevisions = Callable[[Sequence[JobKey]], dict[JobKey, Revision]]
LoadRetired = Callable[[Collection[JobKey]], Retired]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A strategy ready to run, or why it cannot."""

    name: str
    limits: Limits
    strategy: Strategy | None
    refusal: CandlefleetError | None = None
    trading: Trading | None = None
    """How its signals become positions; None when they do not."""


class RuntimeCache:
    """The runtimes of one slot, by strategy and revision.

    An instance is closed and dropped when its strategy is unloaded, some time after a newer revision has replaced it,
    and, least recently used first, when there are too many. Never while a job of the chunk at hand is its own.

    Args:
        load: loads what revisions compute.
        registry: what may be loaded.
        most: instances to keep.
        load_retired: tells which revisions get no new jobs; asked when the catalogue has changed.
        replaced_for_s: seconds for which a replaced revision is kept. Jobs of it may be under way, and where its code
            has changed it cannot be created again.
    """

    def __init__(
        self,
        load: LoadRevisions,
        registry: Registry,
        most: int,
        load_retired: LoadRetired = lambda _: Retired(),
        replaced_for_s: float = REPLACED_FOR_S,
    ) -> None:
        self._load = load
        self._registry = registry
        self._most = most
        self._load_retired = load_retired
        self._replaced_for_s = replaced_for_s
        self._version = -1
        self._revisions: dict[JobKey, Revision] = {}
        self._strategies: OrderedDict[JobKey, Strategy] = OrderedDict()
        self._drop_at: dict[JobKey, float] = {}

    def runtimes(self, keys: Sequence[JobKey], catalogue_version: int) -> list[Runtime]:
        """Return the runtime of each job, in order; one that cannot be created says why in its place.

        Args:
            keys: the jobs of a chunk.
            catalogue_version: version of the catalogue the chunk was built from; newer than what is
                known here means names and limits are loaded again.

        Raises:
            StorageUnavailableError: Postgres was needed and is away.
        """
        if catalogue_version > self._version:
            self._plan_drops()
            self._revisions.clear()
            self._version = catalogue_version
        unknown = [key for key in keys if key not in self._revisions]
        if unknown:
            self._revisions.update(self._load(unknown))
        runtimes = [self._runtime(key) for key in keys]
        if self._drop_at or len(self._strategies) > self._most:
            self._drop(frozenset(keys))
        return runtimes

    def close(self) -> None:
        """Close and drop every instance. Idempotent."""
        while self._strategies:
            self._close(next(iter(self._strategies)))

    def __len__(self) -> int:
        return len(self._strategies)

    def _plan_drops(self) -> None:
        """Note what gets no new jobs any more, and from when on it is not needed."""
        retired = self._load_retired(list(self._strategies)) if self._strategies else Retired()
        now = time.monotonic()
        replaced = {key: self._drop_at.get(key, now + self._replaced_for_s) for key in retired.replaced}
        self._drop_at = {**replaced, **dict.fromkeys(retired.unloaded, now)}

    def _drop(self, in_use: frozenset[JobKey]) -> None:
        now = time.monotonic()
        for key in [key for key, at in self._drop_at.items() if at <= now and key not in in_use]:
            self._close(key)
        spare = max(0, len(self._strategies) - self._most)
        for key in [key for key in list(self._strategies)[:spare] if key not in in_use]:
            self._close(key)

    def _close(self, key: JobKey) -> None:
        """Drop an instance; whatever its own `close` does, the slot goes on."""
        self._drop_at.pop(key, None)
        strategy = self._strategies.pop(key, None)
        if strategy is None:
            return
        try:
            with kept() as surroundings, clock.bounded(CLOSED_WITHIN_S):
                surroundings.run(strategy.close)
        except BaseException as error:  # user code may raise anything
            log.warning("strategy could not be closed", strategy=strategy.name, error=type(error).__name__)

    def _runtime(self, key: JobKey) -> Runtime:
        revision = self._revisions.get(key)
        if revision is None:
            error = UnknownStrategyError(f"strategy {key.strategy_id} has no revision {key.revision}")
            return Runtime(f"strategy {key.strategy_id}", Limits(retries=0), None, error)
        try:
            return Runtime(revision.name, revision.limits, self._strategy(revision), trading=revision.trading)
        except ConfigurationError as error:
            return Runtime(revision.name, revision.limits, None, error, revision.trading)

    def _strategy(self, revision: Revision) -> Strategy:
        strategy = self._strategies.get(revision.key)
        if strategy is None:
            with kept() as surroundings:  # creating it imports and runs its code
                strategy = surroundings.run(self._create, revision)
            self._strategies[revision.key] = strategy
        else:
            self._strategies.move_to_end(revision.key)
        return strategy

    def _create(self, revision: Revision) -> Strategy:
        strategy = self._registry.create(revision.implementation, revision.params, name=revision.name)
        self._check_code(revision, strategy)
        return strategy

    def _check_code(self, revision: Revision, strategy: Strategy) -> None:
        """Refuse code that is not the revision's: its outcomes would be recorded as what they are not."""
        if revision.fingerprint is None:
            return
        wanted = Fingerprint.read(revision.fingerprint)
        found = take_fingerprint(strategy, self._registry.allowed_modules)
        if wanted.code != found.code:
            raise ConfigurationError(
                f"strategy {revision.name!r}: expected the code of revision {revision.key.revision} "
                f"({wanted.code[:SHOWN]}), found other code on this node ({found.code[:SHOWN]}): bring the same code "
                "to every node, then run 'candlefleet strategies add', which makes it a new revision"
            )
        if wanted.platform != found.platform:
            # numbers may differ in their last digits; stopping the fleet for an upgrade would be worse
            advice = "run 'candlefleet strategies add' when all nodes are upgraded"
            log.warning("strategy runs on another SDK, numpy or TA-Lib", strategy=revision.name, advice=advice)
