"""Strategies of one slot: created once per revision, dropped when many, their limits as fresh as the chunk asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from app.domain.jobs import JobKey
from app.domain.strategies import Limits, Trading
from app.errors import CandlefleetError, ConfigurationError, UnknownStrategyError
from app.storage.strategies import Revision
from app.strategies.fingerprint import Fingerprint, take_fingerprint
from app.strategies.registry import Registry
from app.strategies.sdk import Strategy

log = structlog.get_logger()

#: Characters of a fingerprint that people are shown.
SHOWN = 12

LoadRevisions = Callable[[Sequence[JobKey]], dict[JobKey, Revision]]


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
    """The runtimes of one slot, least recently used dropped first."""

    def __init__(self, load: LoadRevisions, registry: Registry, most: int) -> None:
        self._load = load
        self._registry = registry
        self._most = most
        self._version = -1
        self._revisions: dict[JobKey, Revision] = {}
        self._strategies: OrderedDict[JobKey, Strategy] = OrderedDict()

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
            self._revisions.clear()
            self._version = catalogue_version
        unknown = [key for key in keys if key not in self._revisions]
        if unknown:
            self._revisions.update(self._load(unknown))
        return [self._runtime(key) for key in keys]

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
        key = revision.key
        strategy = self._strategies.get(key)
        if strategy is None:
            strategy = self._registry.create(revision.implementation, revision.params, name=revision.name)
            self._check_code(revision, strategy)
            self._strategies[key] = strategy
            if len(self._strategies) > self._most:
                self._strategies.popitem(last=False)
        else:
            self._strategies.move_to_end(key)
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
