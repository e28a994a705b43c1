"""What maintenance counts for Prometheus, and findings: each counted and logged once."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from enum import StrEnum
from typing import Any

import structlog
from prometheus_client import Counter

log = structlog.get_logger()

DEADLOCKS = Counter("optimizer_deadlock", "Found standing still, and recovered", ["kind"])
ACTIONS = Counter("candlefleet_maintenance_actions", "What maintenance did", ["service", "action"])


class Stall(StrEnum):
    """What can stand still."""

    CHUNK = "chunk"
    """A chunk ran past its hard limit, and its slot was not killed."""
    DISPATCH = "dispatch"
    """A dispatch was sent again, and nothing of it landed."""
    NODE = "node"
    """A node reports free slots and does not consume."""


class Findings:
    """What stands still now; new findings are counted and logged."""

    def __init__(self) -> None:
        self._known: set[tuple[Stall, Hashable]] = set()

    def add(self, kind: Stall, key: Hashable, **details: Any) -> bool:
        """Note a finding; tell whether it is new."""
        if (kind, key) in self._known:
            return False
        self._known.add((kind, key))
        DEADLOCKS.labels(kind.value).inc()
        log.warning("stall found", kind=kind.value, **details)
        return True

    def keep(self, kind: Stall, keys: Collection[Hashable]) -> None:
        """Forget the findings of a kind that are no longer so."""
        self._known = {known for known in self._known if known[0] is not kind or known[1] in keys}
