"""The one shape of every maintenance service: it is told the time, does its work once, and reports."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection

#: Opens a transaction. The runner hands out transactions of the session that holds the lock of the active process:
#: whoever lost the lock can no longer write.
Begin = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class Report:
    """What one round of a service did."""

    done: dict[str, int] = field(default_factory=dict)
    """How often what was done; what was not done is absent."""
    has_more: bool = False
    """Whether there is work at hand that should not wait for the next round."""

    @classmethod
    def of(cls, *, has_more: bool = False, **done: int) -> Report:
        """Build a report from counts; zeros are left out."""
        return cls({name: count for name, count in done.items() if count}, has_more)


class Service(Protocol):
    """A maintenance service. Built anew whenever a process becomes the active one, so it may remember."""

    @property
    def name(self) -> str:
        """What it is called in logs."""
        ...

    @property
    def every_s(self) -> float:
        """Seconds between two rounds."""
        ...

    def run_once(self, now: datetime) -> Report:
        """Do what is due at `now`. Idempotent: at once again it finds nothing left to do.

        Raises:
            StorageUnavailableError: Postgres is away.
            BrokerUnavailableError: Redis is away.
        """
        ...
