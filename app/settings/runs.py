"""Batch runs: their limits, the rules of selection, and how slots work on them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.domain.selection import SelectionRules
from app.settings.group import Group


class BatchSettings(Group, SelectionRules):
    """Batch runs, and what is selected from what they find; a run may override each for itself."""

    enabled: bool = True
    """False: no run is started."""
    max_concurrency: Annotated[int, Field(ge=1, le=1000)] = 50
    """Most units of one run that are executed at a time."""
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Most units that a slot claims at once."""
    timeout_ms: Annotated[int, Field(ge=1)] = 5000
    """Soft limit of one unit."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts after the first one of a unit failed."""
    max_age_candles: Annotated[int, Field(ge=0)] = 2
    """Most candles that may have closed after the latest one of a market that is evaluated; an older one is stale."""

    @property
    def selection(self) -> SelectionRules:
        """What is selected and how large."""
        return SelectionRules(**self.model_dump(include=set(SelectionRules.model_fields)))


class RunSettings(Group):
    """Batch runs."""

    most_units: Annotated[int, Field(ge=1)] = 100_000
    """Most units of one run: strategies and params times symbols. 100,000 take 2.5 GB of Postgres, and 150 bytes for
    each of their trades; a grid of more is usually a mistake."""
    cached_candles: Annotated[int, Field(ge=1)] = 500_000
    """Candles of runs that a slot keeps between units, least recently used series dropped first; 500,000 take 24 MB."""
    cached_mb: Annotated[int, Field(ge=1)] = 32
    """Indicators of the newest series that a slot keeps between units, MB: the units of a grid share them."""
    details_days: Annotated[float, Field(ge=0)] = 90.0
    """Days after its end for which a run keeps its details: signals, trades, curves, answers; 0 keeps them for good.
    Its figures stay in any case. As long as outcomes: then there is nothing left to compare signals with."""
    nice: Annotated[int, Field(ge=0, le=20)] = 20
    """How much lower the priority of the slots of a node is that serves only runs: live slots get the cores at once. Up
    to 19 as of nice(1); 20 is only the time that nothing else wants (SCHED_IDLE, where the system has it)."""
