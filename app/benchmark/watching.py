"""What the processes of a node do while they work: their memory, and whether a slot idles while work waits."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, Thread
from typing import Any, Self

import psutil
import psycopg

from app.benchmark.ground import Node
from app.benchmark.tables import connect
from app.broker import Publisher, create_celery

#: Seconds between two samples: a few per message, and little load.
SAMPLE_EVERY_S = 0.01

_IN_POSTGRES = """
    SELECT application_name FROM pg_stat_activity
    WHERE state <> 'idle' AND application_name LIKE 'candlefleet slot %'
"""
_MEGABYTE = 1e6


def pss_mb(processes: Sequence[psutil.Process]) -> float:
    """Return the memory of processes in MB; pages shared with others count in proportion (PSS)."""
    return float(sum(process.memory_full_info().pss for process in processes)) / _MEGABYTE


def node_memory_mb(node: Node) -> float:
    """Return the memory of a node: its main process and its slots."""
    return pss_mb([psutil.Process(node.pid), *node.slots])


def is_busy(before: str, in_postgres: bool, after: str) -> bool:
    """Tell whether a slot is busy: on a core or waiting for one, or Postgres works for it.

    Its state is looked at before and after Postgres is asked, so that a slot which goes from one to the other
    between two looks does not count as idle.
    """
    return in_postgres or any(state in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP) for state in (before, after))


def share_busy(samples: Sequence[tuple[int, Sequence[bool]]]) -> float | None:
    """Return the share of busy slots over the samples in which messages waited; None when none ever did.

    Args:
        samples: messages waiting, and for each slot whether it is busy.
    """
    states = [is_at_work for waiting, slots in samples if waiting for is_at_work in slots]
    return sum(states) / len(states) if states else None


class Utilisation:
    """Samples the slots of a node until it is left."""

    def __init__(self, node: Node) -> None:
        self._slots = node.slots
        self._publisher = Publisher(create_celery(node.settings), node.settings.dispatch.room)
        self._connection: psycopg.Connection[Any] = connect(node.settings.database_dsn, "bench samples")
        self._over = Event()
        self._thread = Thread(target=self._sample, name="samples", daemon=True)
        self.samples: list[tuple[int, list[bool]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self._publisher.close()
        self._connection.close()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_EVERY_S):
            waiting = sum(self._publisher.depths().values())
            before = [slot.status() for slot in self._slots]
            working = {row[0] for row in self._connection.execute(_IN_POSTGRES, prepare=True)}
            self.samples.append((waiting, self._look(before, working)))

    def _look(self, before: Sequence[str], working: set[str]) -> list[bool]:
        return [
            is_busy(state, any(name.endswith(f":{slot.pid}") for name in working), slot.status())
            for state, slot in zip(before, self._slots, strict=True)
        ]
